using GpuHandoff.Kernel;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Simulation.Sysfs;

namespace GpuHandoff.Core.Tests.Simulation;

public class NvidiaTests
{
    [Fact]
    public void An_unbind_of_a_used_gpu_does_not_come_back_and_what_needs_its_lock_hangs_behind_it()
    {
        var kernel = Hosts.SingleGpu();
        kernel.OpenNode("/dev/nvidia0", kernel.StartProcess("ollama"));
        var before = kernel.Uptime;
        Silent(() => kernel.Unbind(Gpu)).Waited.ShouldBe(TimeSpan.FromSeconds(5));
        (kernel.Uptime - before).ShouldBeGreaterThanOrEqualTo(TimeSpan.FromSeconds(5));
        kernel.DriverOf(Gpu).ShouldBe("nvidia");
        Silent(() => kernel.Bind("nvidia", Gpu));
        Silent(() => kernel.Write($"/sys/bus/pci/devices/{Gpu}/reset", "1"));
        Silent(() => kernel.Write($"/sys/bus/pci/devices/{Gpu}/power/control", "on"));
        Silent(() => kernel.Write($"/sys/bus/pci/devices/{Gpu}/remove", "1"));
        kernel.Unbind(Audio);
        kernel.DriverOf(Audio).ShouldBeNull();
    }

    [Fact]
    public void A_stuck_unbind_ends_when_the_user_goes()
    {
        var kernel = Hosts.SingleGpu();
        var user = kernel.StartProcess("ollama");
        kernel.OpenNode("/dev/nvidia0", user);
        Silent(() => kernel.Unbind(Gpu));
        kernel.EndProcess(user);
        kernel.DriverOf(Gpu).ShouldBeNull();
    }

    [Fact]
    public void From_595_a_stuck_unbind_never_ends()
    {
        var kernel = Hosts.SingleGpu(new("595.45.04"));
        var user = kernel.StartProcess("ollama");
        kernel.OpenNode("/dev/nvidia0", user);
        Silent(() => kernel.Unbind(Gpu));
        kernel.EndProcess(user);
        kernel.DriverOf(Gpu).ShouldBe("nvidia");
        Silent(() => kernel.Bind("nvidia", Gpu));
    }

    [Fact]
    public void A_user_that_goes_within_the_budget_lets_the_unbind_return()
    {
        var kernel = Hosts.SingleGpu();
        var file = kernel.OpenNode("/dev/nvidia0", kernel.StartProcess("nvidia-smi"));
        kernel.Later(TimeSpan.FromSeconds(1), file.Dispose);
        kernel.Unbind(Gpu);
        kernel.DriverOf(Gpu).ShouldBeNull();
    }

    [Theory]
    [InlineData("550.163.01", true)]
    [InlineData("580.95.05", true)]
    [InlineData("580.94.18", false)]
    [InlineData("580.105.08", false)]
    [InlineData("595.45.04", false)]
    public void Before_580_105_modeset_keeps_the_gpu_in_use(string version, bool waits)
    {
        var kernel = Hosts.SingleGpu(new(version, Modeset: true));
        if (waits)
            Silent(() => kernel.Unbind(Gpu));
        else
            kernel.Unbind(Gpu);
        kernel.List("/sys/class/drm").Count.ShouldBe(waits ? 2 : 0);
    }

    [Fact]
    public void An_old_driver_without_modeset_leaves_an_orphan_card_and_makes_no_new_one()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Unbind(Gpu);
        kernel.List($"/sys/bus/pci/devices/{Gpu}/drm").ShouldBe(["card0", "renderD128"]);
        kernel.Describe().ShouldContain("orphan-nvidia_drm");
        kernel.Bind("nvidia", Gpu);
        kernel.List($"/sys/bus/pci/devices/{Gpu}/drm").ShouldBe(["card0", "renderD128"]);
    }

    [Fact]
    public void A_new_driver_takes_its_card_along_and_brings_it_back()
    {
        var kernel = Hosts.SingleGpu(new("580.126.20", Modeset: true));
        var before = kernel.Describe();
        kernel.Unbind(Gpu);
        kernel.Exists(new($"/sys/bus/pci/devices/{Gpu}/drm")).ShouldBeFalse();
        kernel.NodeAt(new("/dev/dri/card0")).ShouldBeNull();
        kernel.Bind("nvidia", Gpu);
        kernel.Describe().ShouldBe(before);
    }

    [Fact]
    public void Taking_a_card_away_under_open_files_is_a_hazard()
    {
        var kernel = Hosts.SingleGpu(new("580.126.20"));
        kernel.OpenNode("/dev/dri/renderD128", kernel.StartProcess("Xorg"));
        kernel.Unbind(Gpu);
        kernel.Hazards.ShouldHaveSingleItem().ShouldContain("card0");
    }

    [Fact]
    public void Interrupts_show_use_that_no_process_shows()
    {
        var kernel = Hosts.SingleGpu();
        var folder = $"/sys/bus/pci/devices/{Gpu}/msi_irqs";
        kernel.List(folder).ShouldBeEmpty();
        using (kernel.UseInKernel(At(Gpu)))
            kernel.List(folder).ShouldNotBeEmpty();
        kernel.List(folder).ShouldBeEmpty();
    }

    [Fact]
    public void Legacy_persistence_shows_interrupts_and_yet_lets_go()
    {
        var kernel = Hosts.SingleGpu();
        kernel.SetLegacyPersistence(At(Gpu), on: true);
        kernel.List($"/sys/bus/pci/devices/{Gpu}/msi_irqs").ShouldNotBeEmpty();
        kernel.Unbind(Gpu);
        kernel.DriverOf(Gpu).ShouldBeNull();
    }

    [Fact]
    public void A_gpu_registered_with_uvm_is_in_use_until_the_file_is_closed()
    {
        var kernel = Hosts.SingleGpu();
        var uvm = kernel.OpenNode("/dev/nvidia-uvm", kernel.StartProcess("python3"));
        kernel.Device(Gpu).UsageCount.ShouldBe(0);
        kernel.RegisterWithUvm(uvm, At(Gpu));
        kernel.Device(Gpu).UsageCount.ShouldBe(1);
        uvm.Dispose();
        kernel.Device(Gpu).UsageCount.ShouldBe(0);
    }

    [Fact]
    public void The_control_node_holds_the_module_and_not_the_gpu()
    {
        var kernel = Hosts.SingleGpu();
        kernel.OpenNode("/dev/nvidiactl", kernel.StartProcess("nvidia-persiste"));
        kernel.Device(Gpu).UsageCount.ShouldBe(0);
        kernel.Read("/sys/module/nvidia/refcnt").ShouldBe("3");
        kernel.Unbind(Gpu);
    }

    [Fact]
    public void An_open_i2c_adapter_holds_up_the_unbind()
    {
        var kernel = Hosts.SingleGpu();
        var adapter = kernel.List("/sys/class/i2c-adapter").ShouldHaveSingleItem();
        kernel.Read($"/sys/class/i2c-adapter/{adapter}/name").ShouldBe("NVIDIA i2c adapter 1 at 1:00.0");
        kernel.OpenNode($"/dev/{adapter}", kernel.StartProcess("ddcutil"));
        Silent(() => kernel.Unbind(Gpu));
    }

    [Fact]
    public void The_information_folder_is_there_exactly_while_the_gpu_is_bound()
    {
        var kernel = Hosts.SingleGpu();
        var information = kernel.Read($"/proc/driver/nvidia/gpus/{Gpu}/information").ShouldNotBeNull();
        information.ShouldContain("Device Minor: \t 0");
        information.ShouldContain("GPU-????????-");
        kernel.Unbind(Gpu);
        kernel.List("/proc/driver/nvidia/gpus").ShouldBeEmpty();
    }

    [Fact]
    public void The_minor_is_the_lowest_free_one_at_each_bind()
    {
        var kernel = Hosts.TwoIdenticalGpus();
        kernel.Unbind(Gpu);
        kernel.Unbind(Second);
        kernel.Bind("nvidia", Second);
        kernel.Read($"/proc/driver/nvidia/gpus/{Second}/information")!.ShouldContain("Device Minor: \t 0");
    }

    [Fact]
    public void Nodes_stay_after_the_unload_and_opening_one_loads_the_driver_again()
    {
        var kernel = Hosts.SingleGpu();
        kernel.UnloadNvidia();
        kernel.NodeAt(new("/dev/nvidia0")).ShouldNotBeNull();
        kernel.OpenNode("/dev/nvidia0", kernel.StartProcess("netdata"));
        kernel.DriverOf(Gpu).ShouldBe("nvidia");
        kernel.Calls.ShouldNotContain("modprobe nvidia");
    }

    [Fact]
    public void A_poller_cannot_bring_nvidia_back_to_a_gpu_with_another_override()
    {
        var kernel = Hosts.SingleGpu();
        kernel.UnloadNvidia();
        kernel.Override(Gpu, "vfio-pci");
        Refused(() => kernel.OpenNode("/dev/nvidia0", kernel.StartProcess("netdata"))).ShouldBe(6);
        kernel.Read("/sys/module/nvidia/initstate").ShouldBeNull();
    }

    [Fact]
    public void A_stale_node_of_an_unbound_gpu_says_no_device()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Unbind(Gpu);
        Refused(() => kernel.OpenNode("/dev/nvidia0", kernel.StartProcess("netdata"))).ShouldBe(Errno.NoDevice);
    }

    [Fact]
    public void Uvm_has_another_major_after_each_load()
    {
        var kernel = Hosts.SingleGpu();
        var stale = kernel.NodeAt(new("/dev/nvidia-uvm"))!;
        kernel.Unload("nvidia_uvm");
        kernel.Load("nvidia_uvm");
        kernel.Read("/proc/devices")!.ShouldNotContain($"{stale.Major} nvidia-uvm");
        Refused(() => kernel.OpenNode("/dev/nvidia-uvm", kernel.StartProcess("python3"))).ShouldBe(6);
        kernel.RemoveNode(new("/dev/nvidia-uvm"));
        kernel.MakeNode(new("/dev/nvidia-uvm"), stale with { Major = stale.Major - 1 });
        kernel.OpenNode("/dev/nvidia-uvm", kernel.StartProcess("python3")).Dispose();
    }
}
