using GpuHandoff.Kernel;
using GpuHandoff.Proxmox;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Proxmox;

/// <summary>The other files of a node: storages, lines with what is pending, what is installed.</summary>
public class ReadingNodes
{
    [Theory]
    [InlineData("", "/var/lib/vz/snippets", false)]
    [InlineData("dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,backup\n\nlvmthin: local-lvm\n\tcontent snippets\n", "/var/lib/vz/snippets", false)]
    [InlineData("dir: local\n\tpath /elsewhere\n\tcontent iso,snippets\n", "/var/lib/vz/snippets", true)]
    [InlineData("dir: local\n\tcontent-dirs iso=i,snippets=hooks/qemu\n", "/var/lib/vz/hooks/qemu", false)]
    [InlineData("dir: local\n\tcontent-dirs snippets=../../etc\n", "/var/lib/vz/snippets", false)]
    [InlineData("dir: local2\n\tcontent snippets\n\tcontent-dirs snippets=x\n", "/var/lib/vz/snippets", false)]
    public void The_storage_local_has_its_snippets_where_proxmox_looks_for_them(string text, string folder, bool offers)
    {
        var storage = LocalStorage.Parse(text);
        storage.Snippets.Text.ShouldBe(folder);
        storage.OffersSnippets.ShouldBe(offers);
    }

    [Fact]
    public void What_is_pending_is_what_the_next_start_finds()
    {
        var settings = VmLines.Parse("""
            #hostpci5: 0000:55:00
            hostpci0: 0000:01:00
            hostpci1: 0000:02:00
            hookscript: local:snippets/x
            [pending]
            delete: hostpci1,!hookscript
            hostpci0: 0000:03:00
            hostpci2: 0000:04:00
            [before]
            hostpci7: 0000:05:00
            """);
        settings.Next("hostpci0").ShouldBe("0000:03:00");
        settings.Next("hostpci1").ShouldBeNull();
        settings.Next("hostpci2").ShouldBe("0000:04:00");
        settings.Next("hookscript").ShouldBeNull();
        settings.Next("hostpci5").ShouldBeNull();
        settings.Next("hostpci7").ShouldBeNull();
        settings.Free().First().ShouldBe(3, "a number whose line is about to go is not free yet");
        settings.Devices().Select(d => d.Index).ShouldBe([0, 2]);
    }

    [Theory]
    [InlineData("100", true)]
    [InlineData("999999999", true)]
    [InlineData("99", false)]
    [InlineData("0101", false)]
    [InlineData("1000000000", false)]
    [InlineData("101a", false)]
    [InlineData("", false)]
    public void A_number_is_one_that_proxmox_gives(string text, bool isOne) => ProxmoxNode.TryId(text, out _).ShouldBe(isOne);

    [Fact]
    public void A_vm_that_moved_away_is_none_of_this_node()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Proxmox.Write("101", "name: here\n");
        kernel.Proxmox.Write("201", "name: there\n", node: "pve2");
        var node = new ProxmoxNode(kernel);
        node.Configs().Select(v => v.Id).ShouldBe([101]);
        node.Config(201).ShouldBeNull();
        node.NodeOf(201, "qemu-server").ShouldBe("pve2");
        node.OtherNodes().ShouldBe(["pve2"]);
        node.Name().ShouldBe("pve1");
    }

    [Fact]
    public void A_file_system_that_hangs_is_met_at_a_file_that_has_a_limit()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Proxmox.Write("101", "name: here\n");
        kernel.ClusterHangs = true;
        Should.Throw<KernelSilent>(() => new ProxmoxNode(kernel).Configs());
    }
}
