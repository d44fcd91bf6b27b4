using GpuHandoff.Goals;
using GpuHandoff.Proxmox;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Proxmox;

/// <summary>What a VM gets of a host, by Proxmox's rules.</summary>
public class AllottingDevices
{
    const string First = "0000:01:00.0";
    const string Second = "0000:02:00.0";

    const string Pool = """
        pool
        	description two cards
        	map id=10de:2684,iommugroup=11,node=pve1,path=0000:01:00,subsystem-id=1043:889d
        	map id=10de:2684,iommugroup=12,node=pve1,path=0000:02:00,subsystem-id=1043:889d
        	map id=10de:2684,iommugroup=99,node=pve2,path=0000:41:00,subsystem-id=1043:889d

        """;

    [Theory]
    [InlineData("hostpci0: 0000:02:00")]
    [InlineData("hostpci0: 02:00.0;02:00.1,pcie=on")]
    [InlineData("hostpci7: 02:00.1")]
    [InlineData("args: -device vfio-pci,host=0000:02:00.0")]
    [InlineData("args: -device '{\"driver\":\"vfio-pci\",\"host\":\"02:00.0\"}' -cpu host")]
    [InlineData("args: -device vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:02:00.0")]
    public void A_card_is_meant_by_any_of_its_functions(string line) =>
        Twins(line).Errand(101, "pre-start").ShouldBeOfType<HookErrand.HandOver>().Gpus.ShouldHaveSingleItem().ToString().ShouldBe(Second);

    [Theory]
    [InlineData("hostpci0: 0000:02:00.0,mdev=nvidia-63")]
    [InlineData("hostpci0: 00:02.0")]
    [InlineData("#hostpci0: 0000:02:00")]
    [InlineData("hostpci0: 0000:0A:00")]
    [InlineData("args: -device virtio-net-pci,host=02:00.0")]
    [InlineData("args: -chardev socket,host=127.0.0.1,port=5")]
    [InlineData("[PENDING]\nhostpci0: 0000:02:00")]
    public void What_is_no_card_of_the_VM_or_stays_with_the_host_is_no_business_of_ours(string line)
    {
        var desk = new ProxmoxDesk(Hosts.TwoIdenticalGpus()).With("101", line.Replace("00:02.0", "0000:00:01.0"));
        desk.Errand(101, "pre-start").ShouldBeOfType<HookErrand.None>();
    }

    [Fact]
    public void A_line_that_Proxmox_drops_is_told() =>
        Twins("hostpci0: 0000:0A:00").Errand(101, "pre-start").ShouldBeOfType<HookErrand.None>().Why.ShouldNotBeNull()
            .ShouldContain("/etc/pve/qemu-server/101.conf, line 3: \"0000:0A:00\" is no PCI ID");

    [Theory]
    [InlineData("hostpci0: 0000:09:00", "no PCI device found for \"0000:09:00\"")]
    [InlineData("hostpci0: 0000:02:00\nhostpci1: 0000:09:00.0", "hostpci1: no PCI device found")]
    [InlineData("hostpci0: 0000:02:00\nhostpci1: 02:00.1", "0000:02:00.1 is assigned more than once")]
    [InlineData("hostpci0: 0000:02:00,mapping=pool", "host and mapping are both set")]
    [InlineData("hostpci0: pcie=1", "neither host nor mapping is set")]
    [InlineData("hostpci0: mapping=lake", "there is no PCI device mapping lake for this node, pve1")]
    [InlineData("args: -device vfio-pci,host=0000:09:00.0", "args: no PCI device found for 0000:09:00.0")]
    public void What_Proxmox_would_not_start_is_refused_before_anything_is_touched(string lines, string what)
    {
        var desk = Twins(lines.Split('\n'));
        desk.Call(101, "pre-start").ShouldBe(1);
        desk.Words.ShouldContain(what);
        desk.Words.ShouldContain("VM 101 (vm101) cannot start");
        desk.Writes.ShouldBe(0);
    }

    [Fact]
    public void Of_a_mapping_the_first_free_device_is_taken_as_Proxmox_takes_it()
    {
        var desk = Twins("hostpci0: mapping=pool").With("102", "hostpci3: mapping=pool").With("103", "hostpci0: mapping=pool");
        desk.ShouldStart("101");
        desk.ShouldStart("102");
        desk.Ledger.Leases().Select(l => $"{l.Gpu} {l.Guest.Id}").ShouldBe([$"{First} 101", $"{Second} 102"]);
        desk.Qm.Start("103").ShouldNotBeNull();
        desk.Words.ShouldContain("none of the mapping pool is free");
        desk.Words.ShouldContain("VM 102 (vm102)");
        desk.Qm.Stop("101");
        desk.ShouldStart("103");
        desk.Ledger.Leases().Select(l => $"{l.Gpu} {l.Guest.Id}").ShouldBe([$"{First} 103", $"{Second} 102"]);
        desk.Kernel.DynamicIdsOf("vfio-pci").ShouldBe(0);
    }

    [Fact]
    public void One_VM_may_have_two_of_a_mapping()
    {
        var desk = Twins("hostpci0: mapping=pool", "hostpci1: mapping=pool");
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        desk.Ledger.Leases().Length.ShouldBe(2);
        desk.Qm.Stop("101");
        desk.ShouldBeHome(before);
    }

    [Fact]
    public void A_device_of_the_mapping_whose_VM_is_just_starting_is_not_taken()
    {
        var desk = Twins("hostpci0: mapping=pool").With("102", "hostpci0: mapping=pool");
        using var locked = desk.Kernel.Proxmox.Lock("101");
        desk.Call(101, "pre-start").ShouldBe(0, desk.Words);
        desk.Errand(102, "pre-start").ShouldBeOfType<HookErrand.HandOver>().Gpus.ShouldHaveSingleItem().ToString().ShouldBe(Second);
        desk.Errand(101, "pre-start").ShouldBeOfType<HookErrand.HandOver>().Gpus.ShouldHaveSingleItem().ToString().ShouldBe(First);
    }

    // pve-guests starts up to eight at once: both look before either has taken anything.
    [Fact]
    public void Of_two_VMs_that_saw_the_same_device_free_the_second_takes_the_next()
    {
        var desk = Twins("hostpci0: mapping=pool").With("102", "hostpci0: mapping=pool").With("103", "hostpci0: mapping=pool");
        using var a = desk.Kernel.Proxmox.Lock("101");
        using var b = desk.Kernel.Proxmox.Lock("102");
        HookErrand[] errands = [desk.Errand(101, "pre-start"), desk.Errand(102, "pre-start"), desk.Errand(103, "pre-start")];
        desk.Carry(errands[0]).ShouldBe(0, desk.Words);
        desk.Carry(errands[1]).ShouldBe(0, desk.Words);
        desk.Ledger.Leases().Select(l => $"{l.Gpu} {l.Guest.Id}").ShouldBe([$"{First} 101", $"{Second} 102"]);
        desk.Carry(errands[2]).ShouldBe(1);
        desk.Words.ShouldContain("none of the mapping pool is free");
    }

    [Fact]
    public void A_device_that_Proxmox_gave_to_a_VM_that_came_later_is_swapped_before_the_first_one_has_chosen()
    {
        var desk = Twins("hostpci0: mapping=pool").With("102", "hostpci0: mapping=pool");
        var before = desk.Desk.Picture();
        using (desk.Kernel.Proxmox.Lock("101"))
        {
            desk.Call(101, "pre-start").ShouldBe(0, desk.Words);
            // It has not reserved anything by now, so Proxmox gives the first one to 102.
            desk.ShouldStart("102");
            desk.Ledger.Leases().Select(l => $"{l.Gpu} {l.Guest.Id}").ShouldBe([$"{First} 102", $"{Second} 101"]);
            desk.DriverOf(Second).ShouldBe("vfio-pci");
        }
        desk.Kernel.Proxmox.Start("101", ProxmoxDesk.At(Second), ProxmoxDesk.At("0000:02:00.1"));
        desk.Kernel.Proxmox.Reserve(Second, "101", $"pid:{desk.Kernel.Proxmox.Qemu("101")!.Pid}");
        desk.Call(101, "post-start").ShouldBe(0);
        desk.Kernel.DynamicIdsOf("vfio-pci").ShouldBe(0);
        desk.Qm.Stop("102");
        desk.Kernel.Proxmox.Kill("101");
        desk.Kernel.Proxmox.Release("101");
        desk.Call(101, "post-stop").ShouldBe(0, desk.Words);
        desk.ShouldBeHome(before);
    }

    [Theory]
    [InlineData("id=10de:2684", "id=10de:1234", "id: 0000:01:00.0 is 10de:2684")]
    [InlineData("iommugroup=11", "iommugroup=7", "iommugroup: 0000:01:00.0 is in 11")]
    [InlineData("subsystem-id=1043:889d", "subsystem-id=1043:0001", "subsystem-id: 0000:01:00.0 is 1043:889d")]
    [InlineData(",subsystem-id=1043:889d", "", "the mapping says nothing")]
    [InlineData("path=0000:02:00", "path=0000:02:00.0;0000:02:00.7", "0000:02:00.7 is not there")]
    [InlineData("path=0000:02:00", "path=0000:02:00.0;0000:02:00.1", "id: 0000:02:00.1 is 10de:22ba, and the mapping says 10de:2684")]
    [InlineData("description two cards", "mdev 1", "mdev")]
    public void A_mapping_that_no_longer_fits_the_host_is_refused_as_Proxmox_would(string right, string wrong, string why)
    {
        var desk = Twins("hostpci0: mapping=pool");
        desk.Kernel.Proxmox.WriteMappings(Pool.Replace(right, wrong));
        desk.Call(101, "pre-start").ShouldBe(1);
        desk.Words.ShouldContain("the mapping pool does not fit this host any more");
        desk.Words.ShouldContain(why);
        desk.Writes.ShouldBe(0);
    }

    [Fact]
    public void What_Proxmox_chose_after_all_is_what_counts()
    {
        var desk = Twins("hostpci0: mapping=pool");
        desk.Call(101, "pre-start").ShouldBe(0);
        desk.DriverOf(First).ShouldBe("vfio-pci");
        // Somebody's reservation was in the way for the moment in which Proxmox looked.
        desk.Desk.HandOver(Target.Vfio, "1");
        var qemu = desk.Kernel.Proxmox.Start("101", ProxmoxDesk.At(Second), ProxmoxDesk.At("0000:02:00.1"));
        desk.Kernel.Proxmox.Reserve(Second, "101", $"pid:{qemu.Pid}");
        desk.Call(101, "post-start").ShouldBe(0);
        desk.DriverOf(First).ShouldBe("nvidia");
        desk.Told.ShouldContain("0000:01:00.0 was taken for VM 101 (vm101), and Proxmox has chosen another: it goes back");
        desk.Told.ShouldContain("warns Proxmox has chosen 0000:02:00.0 for VM 101 (vm101), which was not handed over by gpu-handoff");
        desk.Kernel.Proxmox.Qemu("101").ShouldNotBeNull();
    }

    [Fact]
    public void Two_VMs_that_got_each_others_devices_are_told_apart_by_the_reservations()
    {
        var desk = Twins("hostpci0: mapping=pool").With("102", "hostpci0: mapping=pool");
        var before = desk.Desk.Picture();
        using (desk.Kernel.Proxmox.Lock("101"))
        using (desk.Kernel.Proxmox.Lock("102"))
        {
            desk.Call(101, "pre-start").ShouldBe(0);
            desk.Call(102, "pre-start").ShouldBe(0, desk.Words);
            foreach (var (vm, card) in new[] { ("102", First), ("101", Second) })
            {
                var qemu = desk.Kernel.Proxmox.Start(vm, ProxmoxDesk.At(card), ProxmoxDesk.At(card[..^1] + "1"));
                desk.Kernel.Proxmox.Reserve(card, vm, $"pid:{qemu.Pid}");
            }
            desk.Call(102, "post-start").ShouldBe(0);
            desk.Call(101, "post-start").ShouldBe(0);
        }
        desk.Ledger.Leases().Select(l => $"{l.Gpu} {l.Guest.Id}").ShouldBe([$"{First} 102", $"{Second} 101"]);
        desk.DriverOf(First).ShouldBe("vfio-pci");
        desk.DriverOf(Second).ShouldBe("vfio-pci");
        // The watches that their starts left have ended with the loans as they were: each VM has one anew.
        desk.Desk.Memo.Watched.TakeLast(2).ShouldBe([$"{Second} 101", $"{First} 102"], ignoreOrder: true);
        foreach (var vm in (int[])[102, 101])
        {
            desk.Kernel.Proxmox.Kill($"{vm}");
            desk.Kernel.Proxmox.Release($"{vm}");
            desk.Call(vm, "post-stop").ShouldBe(0, desk.Words);
        }
        desk.ShouldBeHome(before);
    }

    [Theory]
    [InlineData("9.0.25", true)]
    [InlineData("9.1.13~bpo1", true)]
    [InlineData("8.4.10", false)]
    [InlineData("9.0.3", false)]
    [InlineData("", true)]
    public void A_device_with_driver_keep_counts_where_Proxmox_knows_the_word(string version, bool counts)
    {
        var desk = Twins("hostpci0: 0000:02:00,driver=keep");
        if (version.Length > 0)
            desk.Kernel.Install("/usr/bin/dpkg-query", version);
        var errand = desk.Errand(101, "pre-start");
        if (counts)
            errand.ShouldBeOfType<HookErrand.HandOver>().Gpus.ShouldHaveSingleItem();
        else
            errand.ShouldBeOfType<HookErrand.None>().Why.ShouldNotBeNull().ShouldContain("hostpci0 has driver=keep, which this Proxmox does not know");
    }

    [Fact]
    public void Nobody_asks_for_the_version_where_driver_keep_is_not_written()
    {
        var desk = Twins("hostpci0: 0000:02:00");
        desk.Kernel.Install("/usr/bin/dpkg-query", "8.4.10");
        desk.Errand(101, "pre-start");
        desk.Kernel.Asked.ShouldBeEmpty();
    }

    // The target of a live migration: vm_start with the config still at the source.
    [Fact]
    public void On_the_target_of_a_migration_the_configuration_lies_with_the_source()
    {
        var desk = new ProxmoxDesk(Hosts.TwoIdenticalGpus());
        desk.Kernel.Proxmox.Write("101", "name: guest\nhostpci0: 0000:02:00\n", node: "pve2");
        desk.Errand(101, "pre-start", from: "pve2").ShouldBeOfType<HookErrand.HandOver>().Gpus.ShouldHaveSingleItem();
        desk.Errand(101, "pre-start", from: "../../../etc").ShouldBeOfType<HookErrand.Refused>();
        desk.Errand(101, "pre-start").ShouldBeOfType<HookErrand.Refused>().Why.Findings[0].Evidence[0].ShouldBe("/etc/pve/qemu-server/101.conf is not there");
    }

    [Fact]
    public void Five_megabytes_of_garbage_are_an_error_with_the_file_and_no_hang()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu());
        desk.Kernel.Proxmox.Write("101", string.Concat(Enumerable.Repeat("hostpci0: \u0001=[;,\n", 300_000)));
        var clock = System.Diagnostics.Stopwatch.StartNew();
        desk.Call(101, "pre-start").ShouldBe(1);
        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(2));
        desk.Words.ShouldContain("/etc/pve/qemu-server/101.conf: it has more than 1 MiB");
        desk.Writes.ShouldBe(0);
    }

    [Theory]
    [InlineData(ProxmoxHost.Mappings)]
    [InlineData(ProxmoxHost.Reservations)]
    public void Five_megabytes_of_garbage_beside_the_configuration_are_an_error_with_the_file(string file)
    {
        var desk = Twins("hostpci0: mapping=pool");
        desk.Kernel.Files.Write(file, string.Concat(Enumerable.Repeat("0000:05:00.0 101 pid:\u0001=[;,\n", 200_000)));
        desk.Call(101, "pre-start").ShouldBe(1);
        desk.Words.ShouldContain($"{file}: it has more than 1 MiB");
        desk.Writes.ShouldBe(0);
    }

    [Fact]
    public void A_VM_that_runs_is_noted_though_nobody_can_read_what_Proxmox_has_chosen()
    {
        var desk = Twins("hostpci0: mapping=pool");
        desk.ShouldStart("101");
        desk.Kernel.Files.Write(ProxmoxHost.Reservations, new string('x', 5 << 20));
        desk.Call(101, "post-start").ShouldBe(0);
        desk.Told.ShouldContain($"{ProxmoxHost.Reservations}: it has more than 1 MiB");
        desk.Ledger.Leases().ShouldHaveSingleItem().Qemu.ShouldNotBeNull();
    }

    [Fact]
    public void A_cluster_file_system_that_has_died_is_told()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu());
        desk.Kernel.Files.Remove("/etc/pve/qemu-server");
        desk.Errand(101, "pre-start").ShouldBeOfType<HookErrand.Refused>().Why.What.ShouldBe("there is no VM 101 on this node");
    }

    static ProxmoxDesk Twins(params string[] lines)
    {
        var desk = new ProxmoxDesk(Hosts.TwoIdenticalGpus()).With("101", lines);
        desk.Kernel.Proxmox.WriteMappings(Pool);
        return desk;
    }
}
