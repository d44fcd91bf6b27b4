using GpuHandoff.Machines;
using GpuHandoff.Proxmox;

namespace GpuHandoff.Core.Tests.Proxmox;

/// <summary>hostpciN: what Proxmox's own parser takes and what it refuses (the list was seen with its code).</summary>
public class ReadingDevices
{
    [Theory]
    [InlineData("0000:05:00")]
    [InlineData("05:00.0;05:00.1,pcie=on")]
    [InlineData("10000:05:00.0")]
    [InlineData("05:00.0,")]
    [InlineData(",05:00.0,,pcie=1")]
    [InlineData("host=05:00.0,pcie=YES,x-vga=True,rombar=off,legacy-igd=no")]
    [InlineData("pcie=1,05:00")]
    [InlineData("05:00,romfile=vbios.bin,mdev=nvidia-63,vendor-id=0x10DE,device-id=0x2684,sub-vendor-id=0x1043,sub-device-id=0x889a")]
    [InlineData("05:00,driver=vfio")]
    public void What_Proxmox_takes_is_taken(string text) => HostPci.Parse(0, text).Host.ShouldNotBeEmpty();

    [Theory]
    [InlineData("0000:0A:00.0", "small letters")]
    [InlineData("5:00.0", "no PCI ID")]
    [InlineData("05:00.0;", "no PCI ID")]
    [InlineData("000:05:00.0", "no PCI ID")]
    [InlineData("05:00.10", "no PCI ID")]
    [InlineData("05:00.0, pcie=1", "is no property")]
    [InlineData("05:00.0,pcie=1,pcie=0", "twice")]
    [InlineData("05:00.0,host=05:00.1", "twice")]
    [InlineData("05:00.0,pcie=maybe", "no boolean")]
    [InlineData("05:00.0,pcie=", "no key=value")]
    [InlineData("05:00.0,=1", "no key=value")]
    [InlineData("mapping=g", "no mapping")]
    [InlineData("mapping=1gpu", "no mapping")]
    [InlineData("05:00,driver=nvidia", "no driver")]
    [InlineData("05:00,vendor-id=10de", "no vendor-id")]
    [InlineData("05:00,mdev=a/b", "no mdev")]
    [InlineData("05:00,romfile=a;b", "no romfile")]
    [InlineData("05:00,colour=red", "is no property")]
    public void What_Proxmox_refuses_is_refused_with_the_reason(string text, string reason) =>
        Should.Throw<NotProxmox>(() => HostPci.Parse(0, text)).Message.ShouldContain(reason);

    [Fact]
    public void A_list_is_one_device_of_several_functions_and_keeps_its_order()
    {
        var device = HostPci.Parse(3, "0000:05:00.1;05:00.0,pcie=1,driver=keep");

        device.Index.ShouldBe(3);
        device.Key().ShouldBe("hostpci3");
        device.Host.ShouldBe([new("0000:05:00.1"), new("05:00.0")]);
        device.Driver.ShouldBe(HostDriver.Keep);
        device.Mapping.ShouldBeNull();
        device.WhyNoStart().ShouldBeNull();
    }

    [Theory]
    [InlineData("05:00", "0000:05:00.3", true)]
    [InlineData("0000:05:00", "0000:05:00.0", true)]
    [InlineData("05:00.0", "0000:05:00.0", true)]
    [InlineData("05:00.0", "0000:05:00.1", false)]
    [InlineData("05:00", "0001:05:00.0", false)]
    [InlineData("05:00", "0000:05:01.0", false)]
    [InlineData("10000:05:00", "10000:05:00.1", true)]
    [InlineData("0000:05:00", "10000:05:00.0", false)]
    public void A_slot_means_all_its_functions_and_no_domain_means_the_first(string id, string function, bool has)
    {
        PciAddress.TryParse(function, out var address).ShouldBeTrue();

        new HostId(id).Has(address).ShouldBe(has);
    }

    [Fact]
    public void Host_and_mapping_together_or_neither_pass_the_parser_and_not_the_start()
    {
        HostPci.Parse(0, "05:00,mapping=gpu-pool").WhyNoStart().ShouldBe("host and mapping are both set");
        HostPci.Parse(0, "pcie=1").WhyNoStart().ShouldBe("neither host nor mapping is set");
        HostPci.Parse(0, "mapping=gpu-pool").WhyNoStart().ShouldBeNull();
    }

    [Fact]
    public void A_mediated_device_is_told_apart() => HostPci.Parse(0, "05:00.0,mdev=nvidia-63").IsMediated.ShouldBeTrue();
}
