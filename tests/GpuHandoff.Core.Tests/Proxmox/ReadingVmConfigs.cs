using GpuHandoff.Proxmox;

namespace GpuHandoff.Core.Tests.Proxmox;

public class ReadingVmConfigs
{
    [Fact]
    public void Only_the_main_section_counts()
    {
        var config = VmConfig.Parse("""
            #hostpci5: 0000:0b:00
            args: -device vfio-pci,host=0000:0c:00.0
            hookscript: local:snippets/gpu-handoff
            hostpci0: 0000:05:00,pcie=1

            hostpci3: mapping=gpu-pool,driver=keep
            lock: backup
            name: windows
            [PENDING]
            delete: hostpci3
            hostpci0: 0000:06:00
            [special:cloudinit]
            hostpci7: 0000:07:00
            [before-update]
            hostpci1: 0000:08:00
            template: 1
            """);

        config.Devices.Select(d => (d.Index, d.Mapping)).ShouldBe([(0, null), (3, "gpu-pool")]);
        config.Devices[0].Host.ShouldBe([new("0000:05:00")]);
        config.Devices[1].Driver.ShouldBe(HostDriver.Keep);
        config.Lock.ShouldBe("backup");
        config.Name.ShouldBe("windows");
        config.Hookscript.ShouldBe("local:snippets/gpu-handoff");
        config.Arguments.ShouldBe("-device vfio-pci,host=0000:0c:00.0");
        config.IsTemplate.ShouldBeFalse();
        config.Dropped.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("[pending]")]
    [InlineData("[snap_1]  ")]
    [InlineData("[no such section]")]
    [InlineData("[]")]
    public void Any_header_ends_it(string header) =>
        VmConfig.Parse($"{header}\nhostpci0: 05:00\n").Devices.ShouldBeEmpty();

    [Fact]
    public void A_line_with_a_bracket_that_is_no_header_is_dropped_and_ends_nothing()
    {
        var config = VmConfig.Parse("[half\nhostpci0: 05:00\n");

        config.Devices.ShouldHaveSingleItem();
        config.Dropped.ShouldHaveSingleItem().Number.ShouldBe(1);
    }

    [Fact]
    public void Of_two_lines_the_later_one_wins_and_one_that_is_dropped_changes_nothing()
    {
        var config = VmConfig.Parse("hostpci0: 05:00\nhostpci0: 06:00\nhostpci0: 0A:00\n");

        config.Devices.ShouldHaveSingleItem().Host.ShouldBe([new("06:00")]);
        var dropped = config.Dropped.ShouldHaveSingleItem();
        (dropped.Number, dropped.Text).ShouldBe((3, "hostpci0: 0A:00"));
        dropped.Why.ShouldContain("small letters");
    }

    [Fact]
    public void Space_around_a_value_and_the_ends_of_lines_do_not_matter() =>
        VmConfig.Parse("hostpci0:05:00 \t\r\ntemplate:   yes\r\n").ShouldSatisfyAllConditions(
            config => config.Devices.ShouldHaveSingleItem().Host.ShouldBe([new("05:00")]),
            config => config.IsTemplate.ShouldBeTrue());

    [Theory]
    [InlineData("hostpci16: 05:00")]
    [InlineData("hostpci00: 05:00")]
    [InlineData("hostpci: 05:00")]
    [InlineData("xhostpci0: 05:00")]
    public void A_number_that_Proxmox_does_not_have_is_no_device(string line) => VmConfig.Parse(line).Devices.ShouldBeEmpty();

    [Fact]
    public void A_megabyte_of_garbage_is_read_in_one_go_and_gives_no_device()
    {
        var garbage = string.Concat(Enumerable.Range(0, ProxmoxNode.MostBytes / 16).Select(i => $"{i:x8}{(char)(i % 128)};,=[:\n"));

        VmConfig.Parse(garbage).Devices.ShouldBeEmpty();
    }
}
