using GpuHandoff.Kernel;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Simulation.Sysfs;

namespace GpuHandoff.Core.Tests.Simulation;

public class FaultTests
{
    [Fact]
    public void A_refused_call_changes_nothing_and_is_listed()
    {
        var kernel = Hosts.SingleGpu();
        var before = kernel.Describe();
        kernel.Faults.Refuse(1, Errno.InputOutput);
        Refused(() => kernel.Override(Gpu, "vfio-pci")).ShouldBe(Errno.InputOutput);
        kernel.Describe().ShouldBe(before);
        kernel.Calls.ShouldBe([$"write \"vfio-pci\\n\" /sys/bus/pci/devices/{Gpu}/driver_override"]);
    }

    [Fact]
    public void An_ignored_call_reports_success_and_changes_nothing()
    {
        var kernel = Hosts.SingleGpu();
        var before = kernel.Describe();
        kernel.Faults.Ignore(call => call.StartsWith("rmmod", StringComparison.Ordinal));
        kernel.Unload("nvidia_uvm");
        kernel.Describe().ShouldBe(before);
        kernel.Calls.ShouldBe(["rmmod nvidia_uvm"]);
    }

    [Fact]
    public void A_silent_call_costs_its_budget_and_keeps_the_devices_lock()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Faults.Silent(1);
        var since = kernel.Uptime;
        Silent(() => kernel.Unbind(Audio)).Waited.ShouldBe(TimeSpan.FromSeconds(5));
        (kernel.Uptime - since).ShouldBeGreaterThanOrEqualTo(TimeSpan.FromSeconds(5));
        kernel.DriverOf(Audio).ShouldBe("snd_hda_intel");
        Silent(() => kernel.Unbind(Audio));
    }

    [Fact]
    public void A_silent_call_may_happen_all_the_same()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Faults.SilentThenDone(1);
        Silent(() => kernel.Unbind(Audio));
        kernel.DriverOf(Audio).ShouldBeNull();
    }

    [Fact]
    public void A_call_may_happen_and_report_an_error()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Faults.RefuseAfterwards(1, Errno.InputOutput);
        Refused(() => kernel.Unload("nvidia_uvm")).ShouldBe(Errno.InputOutput);
        kernel.Exists(new("/sys/module/nvidia_uvm")).ShouldBeFalse();
    }

    [Fact]
    public void A_fault_set_once_is_gone_after_it_struck()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Faults.Refuse(static _ => true, Errno.Busy, once: true);
        Refused(() => kernel.Unload("nvidia_uvm"));
        kernel.Unload("nvidia_uvm");
    }

    [Fact]
    public void Somebody_else_may_act_just_before_a_call_and_is_not_counted()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Faults.Before(2, machine => machine.Elsewhere(other => other.Load("vfio-pci")));
        kernel.Override(Audio, "vfio-pci");
        kernel.Unbind(Audio);
        kernel.Calls.Count.ShouldBe(2);
        kernel.Exists(new("/sys/module/vfio_pci")).ShouldBeTrue();
    }

    [Fact]
    public void Time_passes_only_while_somebody_waits()
    {
        var kernel = Hosts.SingleGpu();
        var now = kernel.Uptime;
        kernel.Read("/proc/modules");
        kernel.Uptime.ShouldBe(now);
        kernel.Pause(TimeSpan.FromSeconds(3));
        kernel.Uptime.ShouldBe(now + TimeSpan.FromSeconds(3));
    }

    public static TheoryData<string> Names => [.. Hosts.All.Select(host => host.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void Every_host_boots_twice_into_the_same_machine_and_every_path_of_it_can_be_walked(string name)
    {
        var boot = Hosts.All.Single(host => host.Name == name).Boot;
        var kernel = boot();
        kernel.Describe().ShouldBe(boot().Describe());
        kernel.Calls.ShouldBeEmpty();
        kernel.Hazards.ShouldBeEmpty();
        Walk(kernel, "/sys/bus").ShouldBeGreaterThan(25);
        Walk(kernel, "/sys/class");
        Walk(kernel, "/sys/devices");
        Walk(kernel, "/sys/module");
        Walk(kernel, "/sys/kernel");
        Walk(kernel, "/proc");
        Walk(kernel, "/dev");
    }

    /// <summary>Every link leads somewhere: a dead one is a path that the simulator got wrong.</summary>
    static int Walk(SimulatedKernel kernel, string folder)
    {
        var seen = 0;
        foreach (var path in kernel.List(folder).Select(name => new SysPath(folder) / name))
        {
            seen++;
            kernel.Exists(path).ShouldBeTrue(path.Text);
            // A namespace is no place to go to: pid:[4026531836], mnt:[4026531841] (fs/nsfs.c:ns_get_name). A program or a library is none of the simulator's.
            if (kernel.Link(path) is { } target && !(target.StartsWith("pid:[", StringComparison.Ordinal) || target.StartsWith("mnt:[", StringComparison.Ordinal)))
            {
                if (target.StartsWith("/usr/", StringComparison.Ordinal))
                    continue;
                kernel.Exists(target.StartsWith('/') ? new(target) : new SysPath(folder) / target).ShouldBeTrue($"{path} -> {target}");
                continue;
            }
            kernel.Read(path);
            seen += Walk(kernel, path.Text);
        }
        return seen;
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Whatever_goes_wrong_a_call_is_done_refused_or_silent(string name)
    {
        var boot = Hosts.All.Single(host => host.Name == name).Boot;
        var calls = Roughly(boot());
        Action<Faults, int>[] kinds =
        [
            (faults, call) => faults.Refuse(call, Errno.InputOutput),
            (faults, call) => faults.Ignore(call),
            (faults, call) => faults.Silent(call),
            (faults, call) => faults.SilentThenDone(call),
            (faults, call) => faults.RefuseAfterwards(call, Errno.InputOutput),
        ];
        foreach (var fault in kinds)
        {
            for (var call = 1; call <= calls; call++)
            {
                var kernel = boot();
                fault(kernel.Faults, call);
                Roughly(kernel).ShouldBe(calls);
                kernel.Describe().ShouldNotBeEmpty();
            }
        }
    }

    /// <summary>Out and back as a careless script does it: on past every error.</summary>
    static int Roughly(SimulatedKernel kernel)
    {
        var functions = kernel.List("/sys/bus/pci/devices").Where(name => !name.StartsWith("0000:00", StringComparison.Ordinal)).ToList();
        foreach (var module in (string[])["nvidia_drm", "nvidia_uvm", "nvidia_modeset", "nvidia"])
            Try(() => kernel.Unload(module));
        Try(() => kernel.Load("vfio-pci"));
        foreach (var function in functions)
        {
            Try(() => kernel.Override(function, "vfio-pci"));
            Try(() => kernel.Unbind(function));
            Try(() => kernel.Bind("vfio-pci", function));
            Try(() => kernel.Write($"/sys/bus/pci/devices/{function}/reset", "1"));
            Try(() => kernel.Unbind(function));
            Try(() => kernel.Override(function, null));
            Try(() => kernel.Write($"/sys/bus/pci/devices/{function}/remove", "1"));
        }
        Try(() => kernel.Write("/sys/bus/pci/rescan", "1"));
        Try(() => kernel.Load("nvidia_drm"));
        Try(() => kernel.Load("nvidia_uvm"));
        return kernel.Calls.Count;

        static void Try(Action act)
        {
            try
            {
                act();
            }
            catch (KernelRefused)
            {
                // On, as scripts do with || true.
            }
            catch (KernelSilent)
            {
                // Likewise.
            }
        }
    }

    [Fact]
    public void A_whole_round_trip_leaves_no_trace_but_vfio()
    {
        var kernel = Hosts.FourFunctions();
        string[] functions = [Gpu, Audio, "0000:01:00.2", "0000:01:00.3"];
        var before = kernel.Describe();
        kernel.UnloadNvidia();
        kernel.HandOver(functions);
        kernel.Describe().ShouldNotBe(before);
        foreach (var function in functions)
        {
            kernel.Unbind(function);
            kernel.Override(function, null);
        }
        kernel.Load("nvidia");
        kernel.Load("nvidia_drm");
        kernel.Load("nvidia_uvm");
        foreach (var function in functions)
            kernel.Write("/sys/bus/pci/drivers_probe", function);
        foreach (var (minor, path) in ((uint, string)[])[(0, "/dev/nvidia-uvm"), (1, "/dev/nvidia-uvm-tools")])
        {
            kernel.RemoveNode(new(path));
            kernel.MakeNode(new(path), new(510, minor, 0x1b6, 0, 0));
        }
        kernel.Describe("vfio_pci").ShouldBe(before);
    }
}
