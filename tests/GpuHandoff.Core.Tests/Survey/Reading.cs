using FsCheck.Xunit;
using GpuHandoff.Machines;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Survey;

public class Reading
{
    [Fact]
    public void Modules_are_read_with_their_counts_holders_and_states()
    {
        var modules = ModuleList.Parse("""
            nvidia_drm 102400 0 - Live 0x0000000000000000 (OE)
            nvidia 60620800 23 nvidia_uvm,nvidia_modeset, Live 0x0000000000000000 (OE)
            nvidia_uvm 4890624 1 - Unloading 0x0000000000000000 (OE)
            vfio_pci 16384 0 - Loading 0x0000000000000000
            nosuch
            """);
        modules.Select(m => m.Name).ShouldBe(["nvidia_drm", "nvidia", "nvidia_uvm", "vfio_pci"]);
        modules[1].Holders.ShouldBe(["nvidia_uvm", "nvidia_modeset"]);
        modules[1].Users().ShouldBe(21);
        modules[2].State.ShouldBe(ModuleState.Unloading);
        modules[3].State.ShouldBe(ModuleState.Loading);
    }

    [Fact]
    public void A_kernel_that_counts_nothing_gives_no_count_and_not_zero() =>
        ModuleList.Parse("nvidia 14299136 - - Live 0xffffffffc0400000 (O)").ShouldHaveSingleItem().RefCount.ShouldBeNull();

    [Fact]
    public void Bars_are_read_with_their_sizes_and_empty_ones_left_out()
    {
        var bars = ResourceTable.Parse("""
            0x00000000fd000000 0x00000000fdffffff 0x0000000000040200
            0x0000006000000000 0x00000067ffffffff 0x000000000014220c
            0x0000000000000000 0x0000000000000000 0x0000000000000000
            0x0000006800000000 0x0000006801ffffff 0x000000000014220c
            0x0000000000000000 0x0000000000000000 0x0000000000000000
            0x000000000000f000 0x000000000000f07f 0x0000000000040101
            0x00000000fe000000 0x00000000fe07ffff 0x0000000000046200
            """);
        bars.Select(b => (b.Index, b.Size)).ShouldBe([(0, 16UL << 20), (1, 32UL << 30), (3, 32UL << 20), (5, 128UL)]);
    }

    [Theory]
    [InlineData("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.163.01  Release Build  (root@pve)", "550.163.01")]
    [InlineData("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025", "580.95.05")]
    [InlineData("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 14:37:44 UTC 2024\nGCC version:  gcc 12.2.0", "470.256.02")]
    public void The_drivers_version_is_read_from_both_flavours(string text, string version) =>
        NvidiaProc.Version(text).ToString().ShouldBe(version);

    [Theory]
    [InlineData("550.163.01", false)]
    [InlineData("570.211.01", false)]
    [InlineData("580.65.06", false)]
    [InlineData("580.94.17", false)]
    [InlineData("580.94.18", true)]
    [InlineData("580.95.05", false)]
    [InlineData("580.105.07", false)]
    [InlineData("580.105.08", true)]
    [InlineData("580.126.20", true)]
    [InlineData("590.43.99", false)]
    [InlineData("590.44.01", true)]
    [InlineData("595.45.04", true)]
    [InlineData("610.57.04", true)]
    public void The_version_tells_whether_nvidia_drm_follows_an_unbind(string text, bool follows)
    {
        DriverVersion.TryParse(text, out var version).ShouldBeTrue();
        version.DrmFollowsUnbind().ShouldBe(follows);
        version.ToString().ShouldBe(text);
    }

    [Fact]
    public void A_name_is_found_below_its_vendor_and_not_below_another()
    {
        const string ids = "# list\n1002  AMD\n\t2684  Wrong\n10de  NVIDIA Corporation\n\t2684  AD102 [GeForce RTX 4090]\n\t\t1043 889a  ROG\n8086  Intel\n";
        PciIds.Find(ids, new(0x10de, 0x2684)).ShouldBe("NVIDIA Corporation AD102 [GeForce RTX 4090]");
        PciIds.Find(ids, new(0x10de, 0x9999)).ShouldBe("NVIDIA Corporation");
        PciIds.Find(ids, new(0x1234, 0x2684)).ShouldBeNull();
    }

    [Fact]
    public void A_glance_sees_the_functions_of_display_cards_and_nothing_else()
    {
        var kernel = Hosts.FourFunctions();
        Surveyor.Glance(kernel).Select(f => $"{f.Address} {f.Owner.Driver}").ShouldBe(
            ["0000:01:00.0 nvidia", "0000:01:00.1 snd_hda_intel", "0000:01:00.2 xhci_hcd", "0000:01:00.3 nvidia-gpu"]);
    }

    [Fact]
    public void A_survey_knows_the_card_its_group_its_driver_and_its_nodes()
    {
        var machine = new Desk(Hosts.WithStranger()).Survey();
        var gpu = machine.Gpus.ShouldHaveSingleItem();
        gpu.Display().Name.ShouldNotBeNull();
        gpu.Minor.ShouldBe(0);
        gpu.Display().ResetMethods.ShouldContain("flr");
        gpu.Display().Bars.ShouldNotBeEmpty();
        gpu.Neighbours.ShouldHaveSingleItem().Owner.Driver.ShouldBe("nvme");
        machine.Nvidia.ShouldBe(new DriverVersion(550, 163, 1));
        machine.IommuIsOn.ShouldBeTrue();
        machine.Nodes.Select(n => n.Path).ShouldContain("/dev/nvidiactl");
        machine.Module("nvidia").Users().ShouldBe(0);
    }

    [Fact]
    public void Ids_for_vfio_pci_are_read_from_the_command_line_and_from_modprobes_files() => VfioIdList.Parse(
        "quiet vfio-pci.ids=10de:2684,10de:22ba iommu=pt",
        ["# options vfio-pci ids=1:1\noptions vfio-pci ids=10de:1adb,10de:2684 disable_vga=1\n", "options vfio_iommu_type1 allow=1"])
        .ShouldBe(["10de:2684", "10de:22ba", "10de:1adb"]);

    [Property]
    public void No_text_breaks_a_parser(string? text)
    {
        text ??= "";
        _ = ModuleList.Parse(text);
        _ = ResourceTable.Parse(text);
        _ = NvidiaProc.Version(text);
        _ = NvidiaProc.Information(text);
        _ = CharDevices.Major(text, "nvidia");
        _ = VfioIdList.Parse(text, [text]);
        _ = PciIds.Find(text, new(0x10de, 0x2684));
        _ = PciAddress.TryParse(text, out _);
        _ = DriverVersion.TryParse(text, out _);
    }

    [Property]
    public void An_address_reads_back_as_it_is_written(uint domain, byte bus, byte device, byte function)
    {
        var address = new PciAddress((int)(domain & 0xffffff), bus, device & 0x1f, function & 7);
        PciAddress.TryParse(address.ToString(), out var read).ShouldBeTrue();
        read.ShouldBe(address);
    }
}
