using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Goals;
using GpuHandoff.Plans;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>
/// Whatever an unprivileged user, or what runs in a container, passes for: it is treated as any process of that user, or of that
/// container, and nothing else is stopped, spared or refused for it.
/// </summary>
public class Impostors
{
    static readonly string[] _nodes = ["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm", "/dev/dri/card0"];

    static readonly UsersPolicy _named = UsersPolicy.Default with
    {
        DisplayManager = Treatment.Restart,
        Units = Treatment.Restart,
        Processes = Treatment.Stop,
        Unit = UsersPolicy.Default.Unit.Add("ollama.service", Treatment.Restart).Add("atd.service", Treatment.Restart).Add("cron.service", Treatment.Restart),
        Container = UsersPolicy.Default.Container.Add("201", Treatment.Restart).Add("202", Treatment.Restart)
            .Add("docker:0123456789ab", Treatment.Restart).Add("podman:0123456789ab", Treatment.Restart),
    };

    static readonly (string Name, UsersPolicy Users)[] _policies =
    [
        ("default", UsersPolicy.Default),
        ("--stop-users", UsersPolicy.Default.Everybody()),
        ("processes: stop", UsersPolicy.Default with { Processes = Treatment.Stop }),
        ("all that it passes for, by name", _named),
    ];

    public static TheoryData<string> Shapes => [.. Impostor.All.Select(i => i.As)];

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Whatever_it_passes_for_the_plan_is_that_for_a_process_which_passes_for_nothing(string shape)
    {
        var impostor = Impostor.Of(shape);
        foreach (var (host, boot) in Hosts.All.Where(h => h.Name is "single-gpu" or "busy-services" or "two-gpus-persistenced" or "lxc-containers"
            or "docker-container" or "mps" or "two-gpus-mps" or "host-target" or "display-manager" or "lxc-by-config"))
        {
            foreach (var by in (FreeBy[])[FreeBy.Unload, FreeBy.Unbind])
            {
                foreach (var (name, users) in _policies)
                {
                    var policy = Policy.Default with { Users = users, By = by };
                    Told(boot(), impostor, policy).ShouldBe(Told(boot(), impostor.Plain(), policy), $"{host}, {by}, {name}");
                }
            }
        }
    }

    /// <summary>The plan or the refusal in words, without the words that the process chose.</summary>
    static string Told(SimulatedKernel kernel, Impostor impostor, Policy policy)
    {
        Impostor.Ground(kernel);
        var process = impostor.Start(kernel, pid: null, _nodes);
        process.Open.ShouldNotBeEmpty();
        var pid = $"{process.Pid} ";
        return new Desk(kernel).Plan(Target.Vfio, "01:00", policy) switch
        {
            Answer.Planned planned => string.Join('\n', planned.Plan.Steps().Select(s => s.Say()).Concat(planned.Plan.Notes)).Replace($"({impostor.Command})", "(it)"),
            Answer.Refused refused => string.Join('\n', refused.Findings.Select(f =>
                $"{f.Code}: {f.What}: {string.Join("; ", f.Evidence.Select(e => e.StartsWith(pid, StringComparison.Ordinal) ? "it" : e))}: {f.Hint}"))
                .Replace($"{pid}{impostor.Command}", $"{pid}it"),
            var answer => answer.ToString(),
        } ?? "";
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void A_hand_over_that_may_end_it_ends_it_alone_and_the_way_back_finds_everybody_else_as_before(string shape)
    {
        var impostor = Impostor.Of(shape);
        var kernel = Hosts.SingleGpu();
        Impostor.Ground(kernel);
        var others = kernel.RunningProcesses.ToList();
        var process = impostor.Start(kernel, pid: null, _nodes);
        var desk = new Desk(kernel);

        desk.Done(Target.Vfio, policy: Policy.Default with { Users = impostor.IsInside() ? _named : UsersPolicy.Default with { Processes = Treatment.Stop } });

        string[] expected = impostor.IsInside() ? ["/usr/sbin/pct shutdown 201 --forceStop 1 --timeout 80"] : [$"kill -15 {process.Pid}"];
        kernel.Calls.Where(call => call.StartsWith("kill", StringComparison.Ordinal) || call.StartsWith("/usr/", StringComparison.Ordinal)).ShouldBe(expected);
        kernel.RunningProcesses.ShouldBe(others.Where(p => !impostor.IsInside() || !p.Cgroup.StartsWith("/lxc/201/", StringComparison.Ordinal)), ignoreOrder: true);
        desk.Done(Target.Host);
        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
    }

    [Theory]
    [InlineData("X by name")]
    [InlineData("X by program")]
    [InlineData("X below the user's own manager")]
    [InlineData("the display manager's unit")]
    public void A_login_by_ssh_that_calls_itself_graphical_and_has_the_screen_does_not_count_to_the_display_managers(string shape)
    {
        var kernel = Hosts.DisplayManager();
        Impostor.Ground(kernel);
        var process = Impostor.Of(shape).Start(kernel, pid: null, _nodes);
        var policy = Policy.Default with { Users = UsersPolicy.Default with { DisplayManager = Treatment.Restart } };
        new Desk(kernel).Refused(Target.Vfio, policy: policy).Findings.First(f => f.Code == "gpu-in-use").Hint.ShouldContain("users: {processes: stop}");

        policy = Policy.Default with { Users = policy.Users with { Processes = Treatment.Stop } };
        new Desk(kernel).Planned(Target.Vfio, policy: policy).Steps().OfType<StopProcess>().ShouldHaveSingleItem().Pid.ShouldBe(process.Pid);
        // Without a session of the display manager's own on the card it goes on.
        kernel = Hosts.SingleGpu(new(Modeset: true));
        Impostor.Ground(kernel);
        kernel.AddUnit("gdm.service", "gdm").Alias = "display-manager.service";
        kernel.StartUnit(kernel.Unit("gdm.service"));
        Impostor.Of(shape).Start(kernel, pid: null, _nodes);
        new Desk(kernel).Planned(Target.Vfio, policy: policy).Steps().ShouldAllBe(s => !(s is StopUnit));
    }

    [Theory]
    [InlineData("kvm", "/usr/bin/qemu-system-x86_64", "/user.slice/user-1000.slice/session-2.scope")]
    [InlineData("kvm", "/usr/bin/qemu-system-x86_64 (deleted)", "/user.slice/user-1000.slice/session-2.scope")]
    [InlineData("renamed", "/usr/libexec/qemu-kvm", "/system.slice/cron.service")]
    [InlineData("renamed", "/opt/bin/qemu-system-aarch64", "/system.slice/run-r3f9.scope")]
    public void A_qemu_that_root_runs_outside_of_any_managers_scope_is_a_vm_all_the_same(string command, string exe, string cgroup)
    {
        var kernel = Hosts.SingleGpu();
        Impostor.Ground(kernel);
        var qemu = kernel.StartProcess(command, cgroup);
        (qemu.User, qemu.Exe) = (0, exe);
        kernel.OpenNode("/dev/dri/card0", qemu);
        new Desk(kernel).Refused(Target.Vfio, policy: Policy.Default with { Users = UsersPolicy.Default.Everybody() }).Findings.ShouldHaveSingleItem()
            .Hint.ShouldContain("a VM is shut down by its owner only");
    }

    [Fact]
    public void A_qemu_in_the_unit_of_libvirts_daemon_is_a_vm_whatever_account_it_runs_as()
    {
        var kernel = Hosts.SingleGpu();
        var daemon = kernel.AddUnit("libvirtd.service", "libvirtd");
        kernel.StartUnit(daemon);
        kernel.StartBelow(daemon, "qemu-system-x86", user: 64055, "/dev/dri/card0");
        new Desk(kernel).Refused(Target.Vfio, policy: Policy.Default with { Users = UsersPolicy.Default.Everybody() }).Findings.ShouldHaveSingleItem()
            .Hint.ShouldContain("a VM is shut down by its owner only");
    }

    [Fact]
    public void A_container_whose_process_calls_itself_kvm_is_stopped_as_the_policy_says()
    {
        var kernel = Hosts.SingleGpu();
        Impostor.Ground(kernel);
        Impostor.Of("a VM, from within a container").Start(kernel, pid: null, _nodes);
        new Desk(kernel).Planned(Target.Vfio, policy: Policy.Default with { Users = UsersPolicy.Default.Everybody() })
            .Steps().OfType<StopContainer>().ShouldHaveSingleItem().Container.Id.ShouldBe("201");
    }

    [Fact]
    public void A_seat_without_a_display_manager_that_logind_keeps_a_card_for_does_not_end_the_one_with()
    {
        // startx from a text console, on the card; the display manager's own session is on none.
        var kernel = Hosts.SingleGpu(new(Modeset: true));
        kernel.Login("9", Impostor.Bob, "login");
        Impostor.Of("X by program").Start(kernel, pid: null, "/dev/dri/card0");
        kernel.OpenNode("/dev/dri/card0", kernel.StartProcess("systemd-logind", "/system.slice/systemd-logind.service"));
        kernel.AddUnit("gdm.service", "gdm").Alias = "display-manager.service";
        kernel.StartUnit(kernel.Unit("gdm.service"));
        new Desk(kernel).Refused(Target.Vfio, policy: Policy.Default with { Users = UsersPolicy.Default.Everybody() with { DisplayManager = Treatment.Restart } })
            .Findings.ShouldHaveSingleItem().Hint.ShouldStartWith("end the graphical session");
    }
}
