using GpuHandoff.Proxmox;

namespace GpuHandoff.Core.Tests.Proxmox;

public class ReadingMappings
{
    const string Two = """
        # cards of the cluster
        gpu-pool
        	description two cards, and a comma
        	live-migration-capable 0
        	map id=10de:2684,iommugroup=18,node=pve1,path=0000:05:00,subsystem-id=1458:40bf
        	map id=10de:2684,iommugroup=19,node=pve1,path=0000:06:00.0;0000:06:00.1
        	map id=10de:2684,node=pve2,path=0000:01:00
        	mdev 0

        vgpu
        	map id=10de:2230,node=pve1,path=0000:0a:00.4
        	mdev 1
        """;

    [Fact]
    public void The_alternatives_of_a_node_come_in_the_order_of_the_file()
    {
        var mapping = PciMappings.Find(Two, "gpu-pool").ShouldNotBeNull();

        var here = mapping.On("pve1").ToList();
        here.Select(a => string.Join(';', a.Path)).ShouldBe(["0000:05:00", "0000:06:00.0;0000:06:00.1"]);
        here.Select(a => (a.Group, a.Id, a.Subsystem)).ShouldBe([(18, new(0x10de, 0x2684), new(0x1458, 0x40bf)), (19, new(0x10de, 0x2684), null)]);
        mapping.On("pve2").ShouldHaveSingleItem().Group.ShouldBeNull();
        mapping.On("pve3").ShouldBeEmpty();
        mapping.IsMediated.ShouldBeFalse();
        mapping.Dropped.ShouldBeEmpty();
    }

    [Fact]
    public void Each_mapping_ends_at_its_blank_line()
    {
        PciMappings.Find(Two, "vgpu").ShouldNotBeNull().IsMediated.ShouldBeTrue();
        PciMappings.Find(Two, "no-such").ShouldBeNull();
        PciMappings.Find("", "gpu-pool").ShouldBeNull();
    }

    [Fact]
    public void Of_two_sections_with_one_name_the_last_one_counts() =>
        PciMappings.Find("gpu\n\tmap id=10de:2684,node=a,path=0000:01:00\n\ngpu\n\tmap id=10de:2684,node=a,path=0000:02:00\n", "gpu")
            .ShouldNotBeNull().Alternatives.ShouldHaveSingleItem().Path.ShouldBe([new("0000:02:00")]);

    [Theory]
    [InlineData("id=10de:2684,node=pve1", "path is missing")]
    [InlineData("id=10de:2684,path=0000:05:00", "node is missing")]
    [InlineData("node=pve1,path=0000:05:00", "id is missing")]
    [InlineData("id=10de:2684,node=pve1,path=05:00", "no PCI ID")]
    [InlineData("id=10de,node=pve1,path=0000:05:00", "no vendor:device")]
    [InlineData("id=10de:2684,node=pve1,path=0000:05:00,iommugroup=x", "no number")]
    [InlineData("id=10de:2684,node=pve1,path=0000:05:00,speed=1", "no property")]
    [InlineData("pve1", "has no key")]
    public void A_line_that_Proxmox_drops_is_dropped_with_its_number(string map, string why)
    {
        var mapping = PciMappings.Find($"gpu\n\tmap {map}\n\tmap id=10de:2684,node=pve1,path=0000:05:00\n", "gpu").ShouldNotBeNull();

        mapping.Alternatives.ShouldHaveSingleItem();
        var dropped = mapping.Dropped.ShouldHaveSingleItem();
        dropped.Number.ShouldBe(2);
        dropped.Why.ShouldContain(why);
    }

    [Fact]
    public void A_name_that_is_none_hides_its_section() =>
        PciMappings.Find("g!\n\tmap id=10de:2684,node=a,path=0000:01:00\n\ngpu\n\tmap id=10de:2684,node=a,path=0000:02:00\n", "g!").ShouldBeNull();
}
