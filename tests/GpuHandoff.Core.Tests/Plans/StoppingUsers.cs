using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>Whoever has the card is made to let go where the policy lets the plan, and started again on the way back.</summary>
public class StoppingUsers
{
    const string Gpu = "0000:01:00.0";
    const string Persistenced = "nvidia-persistenced.service";

    static readonly PciAddress _gpu = new(0, 1, 0, 0);
    static readonly Policy _stop = Policy.Default with { Users = UsersPolicy.Default.Everybody() };

    [Fact]
    public void Without_being_asked_nobody_is_stopped_and_the_refusal_tells_how_to_ask()
    {
        var desk = new Desk(Hosts.BusyServices());
        var finding = desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem();
        finding.Code.ShouldBe("gpu-in-use");
        finding.Evidence.ShouldContain(line => line.Contains("ollama") && line.Contains("/dev/nvidia0"));
        finding.Evidence.ShouldAllBe(line => !line.Contains("persiste"), "NVIDIA's own daemon is not what stands in the way");
        finding.Hint.ShouldContain("--stop-users");
        finding.Hint.ShouldContain("users: {unit: {ollama.service: restart}}");
    }

    [Fact]
    public void Services_are_stopped_before_anything_of_the_card_is_touched_and_these_are_all_the_calls()
    {
        var desk = new Desk(Hosts.BusyServices());
        desk.Done(Target.Vfio, policy: _stop);
        string.Join('\n', desk.Kernel.Calls).ShouldBe("""
            modprobe vfio_pci
            /usr/bin/systemctl stop -- ollama.service
            /usr/bin/systemctl stop -- nvidia-persistenced.service
            write "0" /sys/bus/pci/devices/0000:01:00.0/d3cold_allowed
            write "0" /sys/bus/pci/devices/0000:01:00.1/d3cold_allowed
            write "vfio-pci\n" /sys/bus/pci/devices/0000:01:00.1/driver_override
            write "0000:01:00.1" /sys/bus/pci/drivers/snd_hda_intel/unbind
            write "0000:01:00.1" /sys/bus/pci/drivers/vfio-pci/bind
            write "on" /sys/bus/pci/devices/0000:01:00.1/power/control
            unlink /dev/nvidia-modeset
            unlink /dev/nvidia-uvm
            unlink /dev/nvidia-uvm-tools
            unlink /dev/nvidia0
            unlink /dev/nvidiactl
            rmmod nvidia_uvm
            rmmod nvidia_drm
            rmmod nvidia_modeset
            write "vfio-pci\n" /sys/bus/pci/devices/0000:01:00.0/driver_override
            rmmod nvidia
            write "0000:01:00.0" /sys/bus/pci/drivers/vfio-pci/bind
            write "on" /sys/bus/pci/devices/0000:01:00.0/power/control
            """);
    }

    [Fact]
    public void The_return_starts_what_was_stopped_last_first_and_not_what_was_down_before()
    {
        var desk = new Desk(Hosts.BusyServices());
        var before = desk.Picture();
        desk.Done(Target.Vfio, policy: _stop);
        desk.Kernel.Unit("ollama.service").State.ShouldBe("inactive");
        var calls = desk.Kernel.Calls.Count;

        desk.Done(Target.Host);

        desk.Kernel.Calls.Skip(calls).SkipWhile(call => !call.Contains("systemctl")).ShouldBe(
        [
            "/usr/bin/systemctl reset-failed -- nvidia-persistenced.service",
            "/usr/bin/systemctl start -- nvidia-persistenced.service",
            "/usr/bin/systemctl reset-failed -- ollama.service",
            "/usr/bin/systemctl start -- ollama.service",
        ]);
        desk.Picture().ShouldBe(before);
        desk.Kernel.Unit("display-manager.service").State.ShouldBe("inactive");
    }

    [Fact]
    public void A_unit_that_hit_its_start_limit_is_started_all_the_same()
    {
        var desk = new Desk(Hosts.BusyServices());
        desk.Done(Target.Vfio, policy: _stop);
        desk.Kernel.Unit("ollama.service").HitStartLimit();
        desk.Done(Target.Host);
        desk.Kernel.Unit("ollama.service").State.ShouldBe("active");
    }

    [Fact]
    public void A_service_that_does_not_start_any_more_is_told_and_the_gpu_is_home_all_the_same()
    {
        var desk = new Desk(Hosts.BusyServices());
        desk.Done(Target.Vfio, policy: _stop);
        desk.Kernel.Unit("ollama.service").IsBroken = true;
        desk.Done(Target.Host);
        desk.DriverOf(Gpu).ShouldBe("nvidia");
        desk.Kernel.Unit(Persistenced).State.ShouldBe("active");
        desk.Memo.Lines.ShouldContain(line => line.StartsWith("warns start ollama.service") && line.Contains("control process exited"));
        desk.Ledger.Homes().ShouldBeEmpty();
    }

    [Fact]
    public void A_module_that_turns_busy_gives_everything_back_the_services_too()
    {
        var desk = new Desk(Hosts.BusyServices());
        var before = desk.Picture();
        var pid = 0;
        desk.Kernel.Faults.Before("rmmod nvidia_drm".Equals, kernel =>
        {
            var visitor = kernel.StartProcess("Xorg");
            pid = visitor.Pid;
            kernel.OpenNode("/dev/dri/card0", visitor);
            // Longer than a poller's moment, which is waited for.
            kernel.Later(TimeSpan.FromSeconds(5), () => kernel.EndProcess(visitor));
        });
        var reason = desk.Run(Target.Vfio, policy: _stop).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason;
        reason.ShouldContain("EAGAIN");
        reason.ShouldContain($"in use by {pid} Xorg (/dev/dri/card0)");
        desk.Kernel.Pause(TimeSpan.FromSeconds(5));
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("nvidia/unbind"));
        desk.Picture().ShouldBe(before);
        desk.Ledger.Homes().ShouldBeEmpty();
    }

    [Theory]
    [InlineData("nvidia_uvm", "/dev/nvidia-uvm")]
    [InlineData("nvidia_modeset", "/dev/nvidia-modeset")]
    [InlineData("nvidia", "/dev/nvidiactl")]
    public void Who_keeps_a_module_in_use_is_named_though_its_nodes_are_gone_from_dev(string module, string node)
    {
        var desk = new Desk(Hosts.SingleGpu());
        var pid = 0;
        // Opened before the names went, and handed on: no look at /dev finds it any more.
        desk.Kernel.Faults.Before(call => call.StartsWith($"unlink {node}"), kernel =>
        {
            if (pid != 0)
                return;
            var visitor = kernel.StartProcess("python3");
            pid = visitor.Pid;
            kernel.OpenNode(node, visitor);
        });
        var failed = desk.Run(Target.Vfio).ShouldBeOfType<Outcome.RolledBack>().Cause!;
        failed.Reason.ShouldContain($"{pid} python3 ({node})");
        failed.Reason.ShouldContain("EAGAIN");
        failed.Step!.Say().ShouldContain(module);
    }

    [Fact]
    public void Two_gpus_and_one_daemon_which_runs_again_for_the_card_that_stays_and_anew_when_the_other_is_back()
    {
        var desk = new Desk(Hosts.TwoGpusPersistenced());
        var before = desk.Picture();
        var job = desk.Kernel.Unit("training.service").Process;

        desk.Done(Target.Vfio, "01:00", _stop);

        var daemon = desk.Kernel.Unit(Persistenced);
        daemon.State.ShouldBe("active");
        daemon.Process!.Open.Select(file => file.Path).ShouldBe(["/dev/nvidiactl", "/dev/nvidia1"]);
        desk.Kernel.Unit("training.service").Process.ShouldBe(job, "the other card's job must not notice");
        desk.Planned(Target.Vfio, "01:00", _stop).IsEmpty().ShouldBeTrue();

        desk.Done(Target.Host, "01:00");

        daemon.Process!.Open.Count.ShouldBe(3);
        desk.Kernel.Unit("training.service").Process.ShouldBe(job);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void Exactly_the_containers_that_use_the_gpu_are_stopped_and_started_when_their_nodes_are_there()
    {
        var desk = new Desk(Hosts.LxcContainers());
        desk.Done(Target.Vfio, policy: _stop);
        Running().ShouldBe(["203"]);
        var calls = desk.Kernel.Calls.Count;

        desk.Done(Target.Host);

        Running().ShouldBe(["201", "202", "203"]);
        var back = desk.Kernel.Calls.Skip(calls).ToList();
        back[^2..].ShouldBe(["/usr/sbin/pct start 202", "/usr/sbin/pct start 201"]);
        back[^3].ShouldBe("mknod /dev/nvidiactl");
        desk.Kernel.Container("201").Process!.Open.ShouldContain(file => file.Path == "/dev/nvidia0");

        IEnumerable<string> Running() => ((string[])["201", "202", "203", "204"]).Where(id => desk.Kernel.Container(id).IsRunning);
    }

    [Theory]
    [InlineData(30, "10")]
    [InlineData(100, "80")]
    [InlineData(600, "580")]
    public void A_containers_manager_kills_it_before_we_lose_our_patience(int users, string managers)
    {
        var desk = new Desk(Hosts.LxcContainers());
        desk.Kernel.Container("201").StopTakes = TimeSpan.FromHours(1);
        desk.Done(Target.Vfio, policy: _stop with { Limits = Limits.Default with { Users = TimeSpan.FromSeconds(users), Total = TimeSpan.FromHours(1) } });
        desk.Kernel.Calls.ShouldContain($"/usr/sbin/pct shutdown 201 --forceStop 1 --timeout {managers}");
        desk.Kernel.Container("201").IsRunning.ShouldBeFalse();
    }

    [Fact]
    public void A_container_does_not_end_after_all_was_said_to_be_as_before()
    {
        // Less than a policy file may say: a manager that takes longer than both patiences.
        var desk = new Desk(Hosts.LxcContainers());
        desk.Kernel.Container("201").StopTakes = TimeSpan.FromHours(1);
        desk.Run(Target.Vfio, policy: _stop with { Limits = Limits.Default with { Users = TimeSpan.FromSeconds(3) } });
        var running = desk.Kernel.Container("201").IsRunning;
        desk.Kernel.Pause(TimeSpan.FromMinutes(5));
        desk.Kernel.Container("201").IsRunning.ShouldBe(running, "nothing may happen to it after the run");
    }

    [Fact]
    public void A_container_that_ha_stops_in_its_own_time_is_waited_for()
    {
        var desk = new Desk(Hosts.LxcContainers());
        (desk.Kernel.Container("201").IsStoppedByHa, desk.Kernel.Container("201").StopTakes) = (true, TimeSpan.FromSeconds(15));
        desk.Done(Target.Vfio, policy: _stop);
    }

    [Fact]
    public void A_container_that_still_runs_when_its_manager_says_it_was_stopped_is_told_and_all_goes_back()
    {
        var desk = new Desk(Hosts.LxcContainers());
        var before = desk.Picture();
        (desk.Kernel.Container("201").IsStoppedByHa, desk.Kernel.Container("201").StopTakes) = (true, TimeSpan.FromHours(1));
        desk.Run(Target.Vfio, policy: _stop).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason.ShouldContain("ha-manager set ct:201");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_docker_container_is_stopped_by_docker()
    {
        var desk = new Desk(Hosts.DockerContainer());
        desk.Planned(Target.Vfio, "01:00", _stop).Steps().First(s => s is StopContainer).Say().ShouldBe("stop Docker container 0123456789ab");
        desk.Done(Target.Vfio, "01:00", _stop);
        desk.Kernel.Calls.ShouldContain("/usr/bin/docker stop -t 80 0123456789ab");
        desk.Done(Target.Host, "01:00");
        desk.Kernel.Container("0123456789ab").IsRunning.ShouldBeTrue();
    }

    [Fact]
    public void A_unit_is_stopped_once_whichever_number_of_its_processes_have_the_card()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var unit = desk.Kernel.AddUnit("ollama.service", "ollama", "/dev/nvidia0", "/dev/nvidiactl");
        desk.Kernel.StartUnit(unit);
        desk.Kernel.StartBelow(unit, "ollama_llama_se", user: null, "/dev/nvidia0", "/dev/nvidiactl");
        var steps = desk.Planned(Target.Vfio, policy: _stop).Steps().ToList();
        steps.OfType<StopUnit>().ShouldHaveSingleItem().Unit.ShouldBe("ollama.service");
        steps.OfType<AwaitRelease>().ShouldHaveSingleItem().Users.Length.ShouldBe(4);
    }

    [Fact]
    public void A_process_is_asked_to_end_and_its_end_is_told_beforehand()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var process = desk.Kernel.StartProcess("python3");
        desk.Kernel.OpenNode("/dev/nvidia0", process);
        process.EndTakes = TimeSpan.FromSeconds(3);
        var plan = desk.Planned(Target.Vfio, policy: _stop);
        plan.Notes.ShouldContain($"ended and not started again: {process.Pid} (python3)");
        desk.Run(plan).ShouldBeOfType<Outcome.Done>();
        desk.Kernel.Calls.Count(call => call.StartsWith("kill")).ShouldBe(1);
        desk.Kernel.Calls.ShouldContain($"kill -15 {process.Pid}");
    }

    [Fact]
    public void A_process_that_is_deaf_to_the_request_is_killed_after_ten_seconds()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var process = desk.Kernel.StartProcess("python3");
        desk.Kernel.OpenNode("/dev/nvidia0", process);
        process.IgnoresTerminate = true;
        var began = desk.Kernel.Uptime;
        desk.Done(Target.Vfio, policy: _stop);
        desk.Kernel.Calls.Where(call => call.StartsWith("kill")).ShouldBe([$"kill -15 {process.Pid}", $"kill -9 {process.Pid}"]);
        (desk.Kernel.Uptime - began).ShouldBeGreaterThan(TimeSpan.FromSeconds(10));
    }

    [Fact]
    public void A_process_that_not_even_a_kill_ends_gives_the_services_back_and_the_card_is_not_touched()
    {
        var desk = new Desk(Hosts.BusyServices());
        var process = desk.Kernel.StartProcess("cuda");
        desk.Kernel.OpenNode("/dev/nvidia0", process);
        process.IsUninterruptible = true;
        var before = desk.Picture();
        desk.Run(Target.Vfio, policy: _stop).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason.ShouldContain("in state D");
        desk.Picture().ShouldBe(before);
        desk.Kernel.Calls.ShouldAllBe(call => !call.StartsWith("write") && !call.StartsWith("rmmod"));
    }

    [Fact]
    public void A_stranger_with_the_pid_of_a_holder_that_has_ended_is_left_alone()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var process = desk.Kernel.StartProcess("python3");
        desk.Kernel.OpenNode("/dev/nvidia0", process);
        var step = desk.Planned(Target.Vfio, policy: _stop).Steps().OfType<StopProcess>().ShouldHaveSingleItem();
        var earlier = step with { Started = step.Started - 1 };

        earlier.Look(desk.Kernel).ShouldBe(Position.There);
        earlier.Run(desk.Kernel, Limits.Default);

        desk.Kernel.RunningProcesses.ShouldContain(process);
        step.Look(desk.Kernel).ShouldBe(Position.OnTheWay);
    }

    [Fact]
    public void A_process_goes_last_when_all_that_can_come_back_has_been_seen_to_stop()
    {
        var desk = new Desk(Hosts.BusyServices());
        desk.Kernel.OpenNode("/dev/nvidia0", desk.Kernel.StartProcess("cuda"));
        desk.Planned(Target.Vfio, policy: _stop).Steps().SkipWhile(s => s is LoadModule).Take(4).Select(s => s.GetType())
            .ShouldBe([typeof(StopUnit), typeof(StopUnit), typeof(StopProcess), typeof(AwaitRelease)]);
    }

    [Fact]
    public void A_unit_that_leaves_its_process_behind_is_not_taken_at_its_word()
    {
        var desk = new Desk(Hosts.BusyServices());
        desk.Kernel.Unit("ollama.service").LeavesItsProcess = true;
        var outcome = desk.Run(Target.Vfio, policy: _stop).ShouldBeOfType<Outcome.RolledBack>();
        outcome.Cause!.Reason.ShouldContain("ollama");
        outcome.Cause.Reason.ShouldContain("still has it open");
        desk.Kernel.Calls.ShouldAllBe(call => !call.StartsWith("write") && !call.StartsWith("rmmod"));
        desk.Kernel.Unit(Persistenced).State.ShouldBe("active");
    }

    [Fact]
    public void A_unit_that_takes_longer_to_stop_than_it_may_gives_all_back_and_nothing_is_stuck()
    {
        var desk = new Desk(Hosts.BusyServices());
        desk.Kernel.Unit("ollama.service").StopTakes = TimeSpan.FromSeconds(150);
        var before = desk.Picture();
        var outcome = desk.Run(Target.Vfio, policy: _stop).ShouldBeOfType<Outcome.RolledBack>();
        outcome.Cause!.Reason.ShouldContain("ran longer than 100 s");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_vm_is_never_stopped_whoever_asks_for_it()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.OpenNode("/dev/dri/card0", desk.Kernel.StartProcess("kvm", "/qemu.slice/101.scope"));
        var finding = desk.Refused(Target.Vfio, policy: _stop).Findings.ShouldHaveSingleItem();
        finding.Evidence.ShouldContain(line => line.Contains("kvm"));
        finding.Hint.ShouldContain("stops no VM");
    }

    [Theory]
    [InlineData("systemd-logind", "/system.slice/systemd-logind.service")]
    [InlineData("agent", "/system.slice/handover.service")]
    [InlineData("sh", "/lxc.payload.web/init.scope")]
    public void Neither_logind_nor_our_own_unit_nor_what_pct_does_not_know_is_stopped(string command, string cgroup)
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.Ourselves = desk.Kernel.StartProcess("gpu-handoff", "/system.slice/handover.service");
        desk.Kernel.OpenNode("/dev/dri/card0", desk.Kernel.StartProcess(command, cgroup));
        desk.Refused(Target.Vfio, policy: _stop).Findings.ShouldContain(f => f.Evidence.Any(line => line.Contains(command)));
    }

    [Fact]
    public void Whoever_waits_for_us_is_not_ended()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var shell = desk.Kernel.StartProcess("bash");
        var ourselves = desk.Kernel.StartProcess("gpu-handoff");
        ourselves.Parent = shell.Pid;
        desk.Kernel.Ourselves = ourselves;
        desk.Kernel.OpenNode("/dev/nvidiactl", shell);
        desk.Refused(Target.Vfio, policy: _stop).Findings.ShouldHaveSingleItem().Evidence.ShouldContain(line => line.Contains("bash"));
    }

    [Fact]
    public void A_count_without_a_process_tells_nobody_to_stop_and_is_refused()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.UseInKernel(_gpu);
        desk.Refused(Target.Vfio, policy: _stop).Findings.ShouldHaveSingleItem().Code.ShouldBe("gpu-in-use");
    }

    [Fact]
    public void A_user_of_the_other_card_is_neither_stopped_nor_in_the_way()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus(new("580.126.20")));
        var other = desk.Kernel.StartProcess("cuda");
        desk.Kernel.OpenNode("/dev/nvidia1", other);
        desk.Kernel.OpenNode("/dev/nvidia0", desk.Kernel.StartProcess("python3"));
        desk.Done(Target.Vfio, "01:00", _stop);
        desk.Kernel.RunningProcesses.ShouldHaveSingleItem().ShouldBe(other);
    }

    [Fact]
    public void A_sound_server_lets_go_of_the_cards_audio_function_as_well()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.OpenNode("/dev/snd/controlC0", desk.Kernel.StartProcess("pipewire"));
        desk.Done(Target.Vfio, policy: _stop);
        desk.Kernel.RunningProcesses.ShouldBeEmpty();
    }

    [Fact]
    public void Persistence_mode_is_refused_by_its_name_where_nobody_asked_to_end_it()
    {
        var desk = new Desk(Hosts.LegacyPersistence());
        var nobody = Policy.Default with { Users = UsersPolicy.Default with { Nvidia = Treatment.Refuse } };
        var finding = desk.Refused(Target.Vfio, "01:00", nobody).Findings.ShouldHaveSingleItem();
        finding.Hint.ShouldContain("it is in persistence mode");
        finding.Hint.ShouldContain("--stop-users");
    }

    [Fact]
    public void Persistence_mode_is_switched_off_for_this_card_only_and_on_again_when_it_is_back()
    {
        var desk = new Desk(Hosts.LegacyPersistence());
        desk.Kernel.SetLegacyPersistence(new(0, 2, 0, 0), on: true);
        var before = desk.Picture();
        desk.Done(Target.Vfio, "01:00", _stop);
        desk.Kernel.Describe().ShouldContain("persistent 0000:02:00.0");
        desk.Kernel.Describe().ShouldNotContain("persistent 0000:01:00.0");
        desk.Done(Target.Host, "01:00");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void An_unload_ends_persistence_mode_so_it_is_remembered_though_nobody_was_to_be_stopped()
    {
        var kernel = Hosts.SingleGpu();
        kernel.InstallNvidiaSmi();
        kernel.SetLegacyPersistence(_gpu, on: true);
        var desk = new Desk(kernel);
        var before = desk.Picture();
        desk.Done(Target.Vfio);
        desk.Done(Target.Host);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void Interrupts_that_persistence_mode_does_not_explain_stay_a_refusal()
    {
        var desk = new Desk(Hosts.TwoGpusPersistenced());
        foreach (var unit in desk.Kernel.RunningProcesses.ToList())
            desk.Kernel.EndProcess(unit);
        desk.Kernel.UseInKernel(_gpu);
        desk.Refused(Target.Vfio, "01:00", _stop).Findings.ShouldHaveSingleItem().Evidence.ShouldContain(line => line.Contains("interrupts"));
        desk.Kernel.Asked.ShouldHaveSingleItem().ShouldContain("persistence_mode");
    }

    [Fact]
    public void The_ordinary_hand_over_starts_no_program_to_ask_and_none_but_for_the_drain()
    {
        foreach (var (policy, programs) in new[] { (Policy.Default, 0), (Policy.Default with { By = FreeBy.Unbind }, 1) })
        {
            var kernel = Hosts.SingleGpu();
            kernel.InstallNvidiaSmi();
            var desk = new Desk(kernel);
            desk.Done(Target.Vfio, policy: policy);
            desk.Done(Target.Host, policy: policy);
            kernel.Asked.ShouldBeEmpty();
            kernel.Calls.Count(call => call.StartsWith("/usr/")).ShouldBe(programs);
        }
    }

    /// <summary>The host's own node is gone by then; a container has another one with the same numbers.</summary>
    static DeviceNode ContainersCopy { get; } = new(195, 0, 0x1b6, 100000, 100000);

    [Fact]
    public void A_poller_that_comes_between_the_last_look_and_the_unbind_is_turned_away()
    {
        var desk = new Desk(Hosts.TwoGpusPersistenced());
        var turnedAway = 0;
        desk.Kernel.Faults.Before(call => call.Contains("nvidia/unbind"), kernel =>
            turnedAway = Should.Throw<KernelRefused>(() => kernel.OpenNode(ContainersCopy, "/dev/nvidia0", kernel.StartProcess("netdata"))).Errno);
        desk.Done(Target.Vfio, "01:00", _stop);
        turnedAway.ShouldBe(Errno.InputOutput);
        desk.Kernel.Describe().ShouldNotContain("draining");
    }

    [Fact]
    public void Without_drain_a_poller_after_the_last_look_is_seen_before_the_unbind_and_all_goes_back()
    {
        var desk = new Desk(Hosts.LegacyPersistence());
        var before = desk.Picture();
        var visitor = desk.Kernel.StartProcess("netdata");
        desk.Kernel.Faults.Before(call => call.Contains("driver_override") && call.Contains(Gpu), kernel =>
            kernel.OpenNode(ContainersCopy, "/dev/nvidia0", visitor));
        desk.Run(Target.Vfio, "01:00", _stop).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason.ShouldContain("would never end");
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("nvidia/unbind"));
        desk.Kernel.EndProcess(visitor);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_run_that_rolls_back_lets_new_users_in_again()
    {
        var desk = new Desk(Hosts.TwoGpusPersistenced());
        var before = desk.Picture();
        desk.Kernel.Faults.Refuse(call => call.Contains("nvidia/unbind"), Errno.InputOutput, once: true);
        desk.Run(Target.Vfio, "01:00", _stop).ShouldBeOfType<Outcome.RolledBack>();
        desk.Kernel.Calls.ShouldContain($"/usr/bin/nvidia-smi drain -p {Gpu} -m 0");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_card_that_a_killed_run_left_drained_is_opened_to_users_by_the_way_back()
    {
        var desk = new Desk(Hosts.TwoGpusPersistenced());
        var before = desk.Picture();
        Mortal.DiesBefore(desk, call => call.Contains("nvidia/unbind"), desk.Running(Target.Vfio, "01:00", _stop)).ShouldBeTrue();
        desk.Kernel.Describe().ShouldContain($"draining {Gpu}");
        desk.Done(Target.Host, "01:00");
        desk.Picture().ShouldBe(before);
        desk.Ledger.Homes().ShouldBeEmpty();
    }

    [Theory]
    [InlineData("busy-services", FreeBy.Auto)]
    [InlineData("busy-services", FreeBy.Unbind)]
    [InlineData("two-gpus-persistenced", FreeBy.Auto)]
    [InlineData("lxc-containers", FreeBy.Auto)]
    [InlineData("docker-container", FreeBy.Auto)]
    [InlineData("legacy-persistence", FreeBy.Auto)]
    public void A_run_that_was_killed_anywhere_is_finished_later_and_then_everybody_is_back(string host, FreeBy way)
    {
        Desk Boot() => new(Hosts.All.First(h => h.Name == host).Boot());
        var policy = _stop with { By = way };
        var before = Boot().Picture();
        foreach (var again in new[] { false, true })
        {
            for (var life = 0; ; life++)
            {
                var desk = Boot();
                if (!Mortal.Dies(desk, life, desk.Running(Target.Vfio, "0", policy)))
                    break;
                if (again)
                    desk.Done(Target.Vfio, "0", policy);
                desk.Done(Target.Host, "0");
                desk.Picture().ShouldBe(before, $"killed after {life} changes{(again ? ", finished" : "")}\n{desk.Memo}");
            }
        }
    }

    [Fact]
    public void A_plan_for_two_cards_names_each_service_in_both_records_and_starts_it_once()
    {
        var desk = new Desk(Hosts.TwoGpusPersistenced());
        var before = desk.Picture();
        desk.Done(Target.Vfio, "all", _stop);
        desk.Ledger.Homes().Length.ShouldBe(2);
        desk.Kernel.Unit(Persistenced).State.ShouldBe("inactive");
        desk.Planned(Target.Host, "all").Steps().Count(s => s is StartUnit { Unit: Persistenced }).ShouldBe(1);
        desk.Done(Target.Host, "all");
        desk.Picture().ShouldBe(before);
    }
}
