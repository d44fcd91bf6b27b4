using GpuHandoff.Kernel;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Simulation.Sysfs;

namespace GpuHandoff.Core.Tests.Simulation;

public class ModuleTests
{
    [Fact]
    public void Loading_a_module_loads_what_it_needs_first()
    {
        var kernel = Hosts.SingleGpu();
        kernel.UnloadNvidia();
        kernel.Load("nvidia-drm", "modeset=1");
        kernel.Read("/sys/module/nvidia_modeset/initstate").ShouldBe("live");
        kernel.List("/sys/module/nvidia/holders").ShouldBe(["nvidia_modeset"]);
        kernel.Read("/sys/module/nvidia_drm/parameters/modeset").ShouldBe("Y");
    }

    [Fact]
    public void Loading_what_is_loaded_changes_nothing()
    {
        var kernel = Hosts.SingleGpu();
        var before = kernel.Describe();
        kernel.Load("nvidia_drm", "modeset=1");
        kernel.Describe().ShouldBe(before);
    }

    [Fact]
    public void A_module_that_is_not_there_is_refused_in_modprobes_words()
    {
        var kernel = Hosts.NoNvidiaModule();
        kernel.CanLoad("nvidia").ShouldBeFalse();
        var refused = Should.Throw<KernelRefused>(() => kernel.Load("nvidia"));
        refused.Errno.ShouldBe(0);
        refused.Reason.ShouldBe("modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.12.94+deb13-amd64");
    }

    [Fact]
    public void Debians_files_are_found_under_the_upstream_names()
    {
        var kernel = Hosts.SingleGpu(new(DebianNames: true));
        kernel.UnloadNvidia();
        kernel.CanLoad("nvidia-current-open-drm").ShouldBeTrue();
        kernel.Load("nvidia");
        kernel.Exists(new("/sys/module/nvidia")).ShouldBeTrue();
        Refused(() => kernel.Unload("nvidia-current-open")).ShouldBe(Errno.NoEntry);
    }

    [Fact]
    public void Nvidia_does_not_load_when_every_gpu_is_elsewhere()
    {
        var kernel = Hosts.AlreadyOnVfio();
        var before = kernel.Describe("drm");
        var refused = Should.Throw<KernelRefused>(() => kernel.Load("nvidia"));
        refused.Reason.ShouldContain("could not insert 'nvidia': No such device");
        // What it needs was loaded before it failed, and modprobe leaves that there.
        kernel.Describe("drm").ShouldBe(before);
    }

    [Fact]
    public void Loading_nvidia_takes_all_unbound_gpus_that_no_override_excludes()
    {
        var kernel = Hosts.TwoIdenticalGpus();
        kernel.UnloadNvidia();
        kernel.Override(Gpu, "vfio-pci");
        kernel.Load("nvidia");
        kernel.DriverOf(Gpu).ShouldBeNull();
        kernel.DriverOf(Second).ShouldBe("nvidia");
    }

    [Fact]
    public void A_module_with_dependants_or_open_files_stays_and_nothing_changes()
    {
        var kernel = Hosts.SingleGpu();
        kernel.OpenNode("/dev/dri/card0", kernel.StartProcess("Xorg"));
        var before = kernel.Describe();
        Refused(() => kernel.Unload("nvidia")).ShouldBe(Errno.TryAgain);
        Refused(() => kernel.Unload("nvidia_drm")).ShouldBe(Errno.TryAgain);
        kernel.Describe().ShouldBe(before);
    }

    [Fact]
    public void Unloading_what_is_not_loaded_says_no_entry()
    {
        Refused(() => Hosts.SingleGpu().Unload("nouveau")).ShouldBe(Errno.NoEntry);
        Refused(() => Hosts.VfioBuiltIn().Unload("vfio_pci")).ShouldBe(Errno.NoEntry);
    }

    [Fact]
    public void Unloading_nvidia_takes_it_off_every_gpu()
    {
        var kernel = Hosts.TwoIdenticalGpus();
        kernel.UnloadNvidia();
        kernel.DriverOf(Gpu).ShouldBeNull();
        kernel.DriverOf(Second).ShouldBeNull();
        kernel.Exists(new("/proc/driver/nvidia/version")).ShouldBeFalse();
    }

    [Fact]
    public void A_built_in_module_has_a_folder_without_a_state()
    {
        var kernel = Hosts.VfioBuiltIn();
        kernel.Exists(new("/sys/module/vfio_pci")).ShouldBeTrue();
        kernel.Read("/sys/module/vfio_pci/initstate").ShouldBeNull();
        kernel.Exists(new("/sys/bus/pci/drivers/vfio-pci/bind")).ShouldBeTrue();
        kernel.CanLoad("vfio-pci").ShouldBeTrue();
        kernel.HandOver(Gpu);
        kernel.DriverOf(Gpu).ShouldBe("vfio-pci");
    }

    [Fact]
    public void The_module_list_reads_as_the_kernel_prints_it()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Read("/proc/modules")!.Split('\n').ShouldContain(
            "nvidia 11685888 2 nvidia_uvm,nvidia_modeset, Live 0x0000000000000000 (OE)");
    }

    [Fact]
    public void Modprobes_options_hold_for_every_load()
    {
        var kernel = Hosts.SingleGpu(new(Modeset: true));
        kernel.UnloadNvidia();
        kernel.Load("nvidia_drm");
        kernel.Read("/sys/module/nvidia_drm/parameters/modeset").ShouldBe("Y");
        kernel.Device(Gpu).UsageCount.ShouldBe(1);
    }

    [Fact]
    public void A_kernel_that_cannot_unload_has_no_counts()
    {
        var kernel = new HostBuilder().With(Hosts.Card(1)).WithNvidiaDriver(new()).WithoutModuleUnload().Loading("nvidia").Boot();
        kernel.Read("/proc/modules")!.ShouldStartWith("nvidia 11685888 - - Live");
        kernel.Read("/sys/module/nvidia/refcnt").ShouldBeNull();
        Refused(() => kernel.Unload("nvidia")).ShouldBe(38);
    }
}
