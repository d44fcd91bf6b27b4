using GpuHandoff.Kernel;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Simulation.Sysfs;

namespace GpuHandoff.Core.Tests.Simulation;

public class BindingTests
{
    [Fact]
    public void A_newline_clears_an_override_and_an_empty_write_does_nothing()
    {
        var kernel = Hosts.SingleGpu();
        var path = $"/sys/bus/pci/devices/{Gpu}/driver_override";
        kernel.Read(path).ShouldBe("(null)");
        kernel.Write(path, "vfio-pci\nrest");
        kernel.Read(path).ShouldBe("vfio-pci");
        kernel.Write(path, "");
        kernel.Read(path).ShouldBe("vfio-pci");
        kernel.Write(path, "\n");
        kernel.Read(path).ShouldBe("(null)");
    }

    [Fact]
    public void An_override_neither_binds_nor_unbinds()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Load("vfio-pci");
        kernel.Override(Audio, "vfio-pci");
        kernel.DriverOf(Audio).ShouldBe("snd_hda_intel");
    }

    [Fact]
    public void With_an_override_only_that_driver_takes_the_function()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Override(Audio, "vfio-pci");
        kernel.Unbind(Audio);
        Refused(() => kernel.Bind("snd_hda_intel", Audio)).ShouldBe(Errno.NoDevice);
        kernel.Load("vfio-pci");
        kernel.DriverOf(Audio).ShouldBe("vfio-pci");
    }

    [Fact]
    public void Vfio_takes_nothing_without_an_override_or_a_dynamic_id()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Load("vfio-pci");
        kernel.Unbind(Audio);
        Refused(() => kernel.Bind("vfio-pci", Audio)).ShouldBe(Errno.NoDevice);
    }

    [Fact]
    public void Binding_a_bound_function_is_busy()
    {
        var kernel = Hosts.SingleGpu();
        Refused(() => kernel.Bind("snd_hda_intel", Audio)).ShouldBe(Errno.Busy);
    }

    [Fact]
    public void Unbinding_from_a_driver_that_does_not_have_the_function_says_no_device()
    {
        var kernel = Hosts.SingleGpu();
        Refused(() => kernel.Write("/sys/bus/pci/drivers/nvidia/unbind", Audio)).ShouldBe(Errno.NoDevice);
        Refused(() => kernel.Write("/sys/bus/pci/drivers/nvidia/unbind", "0000:77:00.0")).ShouldBe(Errno.NoDevice);
    }

    [Fact]
    public void A_driver_that_is_not_there_has_no_bind_file()
    {
        var kernel = Hosts.SingleGpu();
        Refused(() => kernel.Bind("vfio-pci", Gpu)).ShouldBe(Errno.NoEntry);
        kernel.Unbind(Audio);
        Refused(() => kernel.Unbind(Audio)).ShouldBe(Errno.NoEntry);
    }

    [Fact]
    public void Without_an_iommu_vfio_refuses_the_function()
    {
        var kernel = Hosts.NoIommu();
        kernel.Load("vfio-pci");
        kernel.Override(Audio, "vfio-pci");
        kernel.Unbind(Audio);
        Refused(() => kernel.Bind("vfio-pci", Audio)).ShouldBe(Errno.Invalid);
        kernel.List("/sys/class/iommu").ShouldBeEmpty();
        kernel.List("/sys/kernel/iommu_groups").ShouldBeEmpty();
    }

    [Fact]
    public void A_failed_nvidia_probe_is_not_permitted()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Unbind(Gpu);
        kernel.LoseDevice(At(Gpu));
        Refused(() => kernel.Bind("nvidia", Gpu)).ShouldBe(Errno.NotPermitted);
        kernel.Read($"/sys/bus/pci/devices/{Gpu}/vendor").ShouldBe("0x10de", "sysfs keeps what was read at enumeration");
        kernel.ReadBytes(new($"/sys/bus/pci/devices/{Gpu}/config"), 2).ShouldBe([0xff, 0xff]);
    }

    [Fact]
    public void Drivers_probe_is_content_with_nothing_bound()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Override(Audio, "none");
        kernel.Unbind(Audio);
        kernel.Write("/sys/bus/pci/drivers_probe", Audio);
        kernel.DriverOf(Audio).ShouldBeNull();
        Refused(() => kernel.Write("/sys/bus/pci/drivers_probe", "0000:77:00.0")).ShouldBe(Errno.NoDevice);
    }

    [Fact]
    public void A_new_id_takes_every_unbound_twin_at_once()
    {
        var kernel = Hosts.TwoIdenticalGpus();
        kernel.Load("vfio-pci");
        kernel.UnloadNvidia();
        kernel.Write("/sys/bus/pci/drivers/vfio-pci/new_id", "10de 2684");
        kernel.DriverOf(Gpu).ShouldBe("vfio-pci");
        kernel.DriverOf(Second).ShouldBe("vfio-pci");
        Refused(() => kernel.Write("/sys/bus/pci/drivers/vfio-pci/new_id", "10de 2684")).ShouldBe(Errno.Exists);
    }

    [Fact]
    public void Removing_an_id_unbinds_nothing_and_wants_the_id_to_be_there()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Load("vfio-pci");
        kernel.UnloadNvidia();
        kernel.Write("/sys/bus/pci/drivers/vfio-pci/new_id", "10de 2684");
        kernel.Write("/sys/bus/pci/drivers/vfio-pci/remove_id", "10de 2684");
        kernel.DriverOf(Gpu).ShouldBe("vfio-pci");
        Refused(() => kernel.Write("/sys/bus/pci/drivers/vfio-pci/remove_id", "10de 2684")).ShouldBe(Errno.NoDevice);
    }

    [Fact]
    public void A_dynamic_id_wins_over_nvidia_after_a_rescan()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Load("vfio-pci");
        kernel.UnloadNvidia();
        kernel.Write("/sys/bus/pci/drivers/vfio-pci/new_id", "10de 2684");
        kernel.Unbind(Gpu);
        kernel.Write($"/sys/bus/pci/devices/{Gpu}/remove", "1");
        kernel.Write("/sys/bus/pci/rescan", "1");
        kernel.DriverOf(Gpu).ShouldBe("vfio-pci");
    }

    [Fact]
    public void A_removed_function_comes_back_without_override_and_finds_its_driver()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Override(Audio, "vfio-pci");
        kernel.Unbind(Audio);
        kernel.Write($"/sys/bus/pci/devices/{Audio}/remove", "1");
        kernel.Exists(new($"/sys/bus/pci/devices/{Audio}")).ShouldBeFalse();
        kernel.Write("/sys/bus/pci/devices/0000:00:01.0/rescan", "1");
        kernel.Read($"/sys/bus/pci/devices/{Audio}/driver_override").ShouldBe("(null)");
        kernel.DriverOf(Audio).ShouldBe("snd_hda_intel");
        kernel.Hazards.ShouldBeEmpty();
    }

    [Fact]
    public void A_rescan_makes_udev_load_the_driver_of_what_appears()
    {
        var kernel = Hosts.SingleGpu();
        kernel.UnloadNvidia();
        kernel.Write($"/sys/bus/pci/devices/{Gpu}/remove", "1");
        kernel.Write("/sys/class/pci_bus/0000:00/rescan", "1");
        kernel.DriverOf(Gpu).ShouldBe("nvidia");
    }

    [Fact]
    public void Removing_a_bound_function_is_a_hazard()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Write($"/sys/bus/pci/devices/{Audio}/remove", "1");
        kernel.Hazards.ShouldHaveSingleItem().ShouldContain("snd_hda_intel");
    }

    [Fact]
    public void A_write_that_nobody_taught_the_simulator_is_loud()
    {
        var kernel = Hosts.SingleGpu();
        Should.Throw<InvalidOperationException>(() => kernel.Write($"/sys/bus/pci/devices/{Gpu}/enable", "0"))
            .Message.ShouldContain("was not taught");
        Should.Throw<InvalidOperationException>(() => kernel.Write("/sys/nowhere", "1"));
    }
}
