using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Machines;
using GpuHandoff.Proxmox;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Proxmox;

/// <summary>Which guests each card is for, and who has it now.</summary>
public class ListingGuests
{
    readonly Desk _desk = new(Hosts.SingleGpu());

    SimulatedKernel Kernel => _desk.Kernel;

    ImmutableArray<Shared> Cards() => [.. Sharers.Of(_desk.Survey(), NodeGuests.Of(new(Kernel), Kernel))];

    [Fact]
    public void Every_way_to_give_a_card_is_found()
    {
        Kernel.Proxmox.WriteMappings("gpu-pool\n\tmap id=10de:2684,node=pve1,path=0000:01:00\n\nfar-pool\n\tmap id=10de:2684,node=pve2,path=0000:01:00\n");
        Kernel.Proxmox.Write("101", "hookscript: local:snippets/gpu-handoff\nhostpci0: 01:00,pcie=1\nname: windows\n");
        Kernel.Proxmox.Write("102", "hookscript: local:snippets/own.sh\nhostpci1: mapping=gpu-pool\n");
        Kernel.Proxmox.Write("103", "args: -device vfio-pci,host=0000:01:00.0\nname: raw\n");
        Kernel.Proxmox.Write("104", "hostpci0: mapping=far-pool\nhostpci1: 0000:09:00\nhostpci2: 0000:01:00.0,mdev=nvidia-63\nname: none-of-it\n");
        Kernel.Proxmox.Write("105", "name: old\n\n[before]\nhostpci0: 0000:01:00\n");
        Kernel.AddContainer(ContainerKind.Lxc, "107", "jellyfin").Config = "dev0: /dev/nvidia0\nhostname: media\n";
        Kernel.AddContainer(ContainerKind.Lxc, "108", "nginx").Config = "hostname: web\n";

        Cards().ShouldHaveSingleItem().Guests.Select(c => (c.ToString(), c.Through, c.Hook)).ShouldBe(
        [
            ("VM 101 (windows)", "hostpci0", Hookscript.Ours),
            ("VM 102", "hostpci1, mapping gpu-pool", Hookscript.Another),
            ("VM 103 (raw)", "args", Hookscript.None),
            ("container 107 (media)", "its devices", null),
        ]);
    }

    [Fact]
    public void Who_has_it_now_is_told()
    {
        Kernel.Proxmox.Write("101", "hostpci0: 0000:01:00\nname: windows\n");
        Kernel.Proxmox.Write("102", "hostpci0: 0000:01:00\nname: linux\n");
        Kernel.AddContainer(ContainerKind.Lxc, "107", "jellyfin").Config = "dev0: /dev/nvidia0\nhostname: media\n";
        Cards()[0].Now.ShouldBe("with the host (nvidia)");

        var gpu = _desk.Survey().Gpus[0].Address;
        _desk.Done(Target.Vfio);
        Cards()[0].Now.ShouldBe("on vfio-pci, and nobody has it");

        Kernel.Proxmox.Start("101", gpu);
        Cards()[0].Now.ShouldBe("VM 101 has it, without a lease of ours");

        _desk.Ledger.Lend(new(Kernel.BootId, gpu, new(VmManager.Proxmox, "101") { Name = "windows" }, [], Kernel.Uptime));
        var card = Cards()[0];
        card.Now.ShouldStartWith("lent to VM 101 (windows)");
        card.Guests.Select(c => (c.Id, c.Runs, c.HasIt)).ShouldBe([(101, true, true), (102, false, false), (107, false, false)]);
    }

    [Fact]
    public void A_domain_of_libvirts_with_a_vms_number_is_another_guest()
    {
        Kernel.Proxmox.Write("101", "hostpci0: 0000:01:00\n");
        _desk.Done(Target.Vfio);
        _desk.Ledger.Lend(new(Kernel.BootId, _desk.Survey().Gpus[0].Address, new(VmManager.Libvirt, "101"), [], Kernel.Uptime));

        var card = Cards().ShouldHaveSingleItem();

        card.Now.ShouldStartWith("lent to VM 101");
        card.Guests.ShouldHaveSingleItem().HasIt.ShouldBeFalse();
    }

    [Fact]
    public void Vms_with_the_hook_and_no_card_are_told_since_their_start_hangs_on_it()
    {
        Kernel.Proxmox.WriteMappings("far-pool\n\tmap id=10de:2684,node=pve2,path=0000:01:00\n");
        Kernel.Proxmox.Write("101", "hookscript: local:snippets/gpu-handoff\nhostpci0: 0000:01:00\n");
        Kernel.Proxmox.Write("102", "hookscript: local:snippets/gpu-handoff\nname: was-windows\n");
        Kernel.Proxmox.Write("103", "hookscript: nas:snippets/gpu-handoff\nhostpci0: mapping=far-pool\n");
        Kernel.Proxmox.Write("104", "hookscript: local:snippets/own.sh\n");
        Kernel.Proxmox.Write("105", "name: plain\n");
        Kernel.Proxmox.Write("106", new string('y', 3_000_000));
        Kernel.Proxmox.Start("103");

        Sharers.WithHookAlone(Cards(), NodeGuests.Of(new(Kernel), Kernel)).Select(v => (v.ToString(), v.Runs))
            .ShouldBe([("VM 102 (was-windows)", false), ("VM 103", true)]);
    }

    [Fact]
    public void A_file_that_is_wrong_is_told_with_its_line_and_hides_no_other()
    {
        Kernel.Proxmox.Write("101", "hostpci0: 0000:01:00\n");
        Kernel.Proxmox.Write("102", "name: x\nhostpci0: 0000:0A:00\nnonsense\n");
        Kernel.Proxmox.Write("103", new string('y', 3_000_000));
        Kernel.Proxmox.Write("104", string.Concat(Enumerable.Repeat("garbage\n", 100)));

        var guests = NodeGuests.Of(new(Kernel), Kernel);

        Sharers.Of(_desk.Survey(), guests).Single().Guests.ShouldHaveSingleItem().Id.ShouldBe(101);
        var troubles = guests.Troubles().ToList();
        troubles.ShouldContain(t => t.StartsWith("/etc/pve/qemu-server/102.conf, line 2: ", StringComparison.Ordinal) && t.Contains("0000:0A:00", StringComparison.Ordinal));
        troubles.ShouldContain(t => t.StartsWith("/etc/pve/qemu-server/103.conf: ", StringComparison.Ordinal));
        troubles.ShouldContain("/etc/pve/qemu-server/104.conf: 97 more such lines");
    }

    [Fact]
    public void A_pidfile_of_a_qemu_that_is_gone_is_no_vm_that_runs()
    {
        Kernel.Proxmox.Write("101", "hostpci0: 0000:01:00\n");
        Kernel.Proxmox.Start("101");
        NodeGuests.Of(new(Kernel), Kernel).Running.ShouldBe([101]);
        Kernel.Proxmox.Kill("101");
        NodeGuests.Of(new(Kernel), Kernel).Running.ShouldBeEmpty();
    }
}
