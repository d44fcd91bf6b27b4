using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Proxmox;

/// <summary>What attach and detach do to a VM's configuration and a node's files, and what they refuse.</summary>
public class SettingUp : SetUpDesk
{
    [Fact]
    public void A_vm_gets_the_link_the_card_and_the_hook_in_one_call_of_qm()
    {
        ChangesOf(Attach()).ShouldBe(3);

        Kernel.Link(new(Link)).ShouldBe(Program);
        Config().ShouldBe("bios: ovmf\nhookscript: local:snippets/gpu-handoff\nhostpci0: 0000:01:00,pcie=1,driver=keep\nmachine: pc-q35-9.2\nmemory: 8192\nname: windows\n");
        Kernel.Calls.Count(c => c.StartsWith("/usr/sbin/qm", StringComparison.Ordinal)).ShouldBe(1);
        VmConfig.Parse(Config()).Dropped.ShouldBeEmpty();
    }

    [Fact]
    public void Twice_is_safe_and_detach_still_takes_all_of_it_back()
    {
        var before = Kernel.Files.Describe();
        Attach();
        var after = Kernel.Files.Describe();

        ChangesOf(Attach()).ShouldBe(0);
        Kernel.Files.Describe().ShouldBe(after);
        Records.All().ShouldHaveSingleItem().Settings.Length.ShouldBe(2);

        ChangesOf(Detach()).ShouldBe(3);
        Kernel.Files.Describe().ShouldBe(before);
        Records.All().ShouldBeEmpty();
    }

    [Fact]
    public void A_look_changes_nothing_and_tells_each_step_with_its_undo()
    {
        var before = (Kernel.Files.Describe(), Kernel.Calls.Count);

        var plan = SetUp().WouldAttach(new(101), Policy.Default).ShouldBeOfType<Answer.Planned>().Plan;

        (Kernel.Files.Describe(), Kernel.Calls.Count).ShouldBe(before);
        plan.Steps().Select(s => (s.Say(), s.Undo()!.Say())).ShouldBe(
        [
            ("make the folder /var/lib/vz/snippets", "remove the empty folder /var/lib/vz/snippets"),
            ($"link {Link} → {Program}", $"remove the link {Link}"),
            ("qm set 101 --hostpci0 0000:01:00,pcie=1,driver=keep --hookscript local:snippets/gpu-handoff", "qm set 101 --delete hookscript,hostpci0"),
        ]);
        Records.All().ShouldBeEmpty();
    }

    [Fact]
    public void What_somebody_changed_since_is_left_and_told()
    {
        Attach();
        Kernel.Proxmox.Write("101", Config().Replace("pcie=1", "pcie=1,rombar=0"));
        Kernel.Files.Write("/var/lib/vz/snippets/other.pl", "#!/usr/bin/perl\n");

        var ending = Detach();

        NotesOf(ending).ShouldContain(n => n.StartsWith("hostpci0 is left as it is", StringComparison.Ordinal));
        Config().ShouldContain("hostpci0: 0000:01:00,pcie=1,rombar=0");
        Config().ShouldNotContain("hookscript");
        Kernel.Files.Has(Link).ShouldBeFalse();
        Kernel.Files.Has("/var/lib/vz/snippets/other.pl").ShouldBeTrue();
    }

    [Fact]
    public void A_value_that_proxmox_has_put_into_another_order_is_still_ours()
    {
        Attach();
        Kernel.Proxmox.Write("101", Config().Replace("0000:01:00,pcie=1,driver=keep", "driver=keep,host=0000:01:00,pcie=1"));

        ChangesOf(Attach()).ShouldBe(0);
        Detach();

        Config().ShouldBe(Windows);
    }

    [Fact]
    public void A_card_that_the_vm_has_already_gets_the_hook_alone_and_keeps_its_line_when_it_is_detached()
    {
        Kernel.Proxmox.Write("101", Windows + "hostpci3: 01:00.0;01:00.1,pcie=1,x-vga=1\n");

        Attach();
        Config().ShouldContain("hookscript: ");
        Config().ShouldNotContain("hostpci0");

        Detach();
        Config().ShouldContain("hostpci3: 01:00.0;01:00.1,pcie=1,x-vga=1");
        Config().ShouldNotContain("hookscript");
    }

    [Theory]
    [InlineData("machine: pc-i440fx-9.2\n", "9.2.6", false, "0000:01:00,driver=keep")]
    [InlineData("", "9.2.6", false, "0000:01:00,driver=keep")]
    [InlineData("machine: type=q35,viommu=intel\n", "9.0.25", false, "0000:01:00,pcie=1,driver=keep")]
    [InlineData("machine: q35\n", "9.0.24", false, "0000:01:00,pcie=1")]
    [InlineData("machine: q35\n", "8.4.10", true, "0000:01:00,pcie=1,x-vga=1")]
    public void The_flags_suit_the_vm_and_the_host(string config, string version, bool primary, string value)
    {
        Kernel.Proxmox.Write("101", config + "name: windows\n");
        Kernel.Proxmox.QemuServer = version;

        Attach(primary: primary);

        Config().ShouldContain($"hostpci0: {value}\n");
    }

    [Fact]
    public void A_cluster_gets_no_driver_keep_because_an_older_node_would_drop_the_line_and_is_told_what_other_nodes_need()
    {
        Kernel.Proxmox.Write("201", "name: far\n", node: "pve2");

        var ending = Attach();

        Config().ShouldContain("hostpci0: 0000:01:00,pcie=1\n");
        NotesOf(ending).ShouldContain(n => n.Contains("pve2", StringComparison.Ordinal) && n.Contains("--mapping", StringComparison.Ordinal));
    }

    [Fact]
    public void A_vm_under_ha_is_told_what_its_other_nodes_need()
    {
        Kernel.Files.Write("/etc/pve/ha/resources.cfg", "vm: 100\n\tstate started\n\nvm: 101\n\tstate started\n");
        NotesOf(Attach()).ShouldContain(n => n.Contains("under HA", StringComparison.Ordinal));
    }

    [Fact]
    public void A_mapping_gives_the_card_by_its_name()
    {
        Kernel.Proxmox.WriteMappings("gpu-pool\n\tmap id=10de:2684,iommugroup=11,node=pve1,path=0000:01:00,subsystem-id=1043:889d\n\tmap id=10de:2684,node=pve2,path=0000:41:00\n");

        Attach(mapping: "gpu-pool");

        Config().ShouldContain("hostpci0: mapping=gpu-pool,pcie=1");
        ChangesOf(Attach(mapping: "gpu-pool")).ShouldBe(0);
        ChangesOf(Attach()).ShouldBe(0, "the mapping gives the card already");
    }

    [Theory]
    [InlineData("other\n\tmap id=10de:2684,node=pve1,path=0000:01:00\n", "no-such-mapping")]
    [InlineData("gpu-pool\n\tmap id=10de:2684,node=pve2,path=0000:01:00\n", "mapping-misses-gpu")]
    [InlineData("gpu-pool\n\tmap id=10de:2684,node=pve1,path=0000:09:00\n", "mapping-misses-gpu")]
    [InlineData("gpu-pool\n\tmap id=10de:1111,node=pve1,path=0000:01:00\n", "mapping-is-stale")]
    [InlineData("gpu-pool\n\tmap id=10de:2684,iommugroup=99,node=pve1,path=0000:01:00,subsystem-id=1043:889d\n", "mapping-is-stale")]
    [InlineData("gpu-pool\n\tmap id=10de:2684,node=pve1,path=0000:01:00,subsystem-id=1043:889d\n", "mapping-is-stale")]
    [InlineData("gpu-pool\n\tmap id=10de:2684,iommugroup=11,node=pve1,path=0000:01:00\n", "mapping-is-stale")]
    [InlineData("gpu-pool\n\tmap id=10de:2684,iommugroup=11,node=pve1,path=0000:01:00,subsystem-id=1043:0001\n", "mapping-is-stale")]
    [InlineData("gpu-pool\n\tmap id=10de:2684,iommugroup=11,node=pve1,path=0000:01:00.0;0000:01:00.1,subsystem-id=1043:889d\n", "mapping-is-stale")]
    [InlineData("gpu-pool\n\tmap id=10de:2684,iommugroup=11,node=pve1,path=0000:01:00,subsystem-id=1043:889d\n\tmdev 1\n", "mapping-is-stale")]
    public void A_mapping_that_would_not_do_is_refused(string mappings, string code)
    {
        Kernel.Proxmox.WriteMappings(mappings);
        Refused(() => Attach(mapping: "gpu-pool")).ShouldContain(f => f.Code == code);
    }

    [Fact]
    public void The_first_number_at_which_nothing_is_and_nothing_is_pending_is_taken()
    {
        Kernel.Proxmox.Write("101", Windows + "hostpci0: 0000:44:00\n\n[PENDING]\nhostpci1: 0000:45:00\n\n[before]\nhostpci2: 0000:01:00\n");
        Attach();
        Config().ShouldContain("hostpci2: 0000:01:00,pcie=1,driver=keep");
        Config().ShouldContain("[before]\nhostpci2: 0000:01:00\n");
    }

    [Fact]
    public void A_vm_with_sixteen_devices_is_refused()
    {
        Kernel.Proxmox.Write("101", Windows + string.Concat(Enumerable.Range(0, 16).Select(n => $"hostpci{n}: 0000:{0x40 + n:x2}:00\n")));
        Refused(() => Attach()).ShouldHaveSingleItem().Code.ShouldBe("no-free-hostpci");
    }

    [Theory]
    [InlineData("name: windows\ntemplate: 1\n", "vm-is-a-template")]
    [InlineData("lock: backup\nname: windows\n", "vm-is-locked")]
    [InlineData("hookscript: local:snippets/mine.pl\nname: windows\n", "hookscript-is-anothers")]
    public void A_vm_that_is_not_free_for_it_is_refused(string config, string code)
    {
        Kernel.Proxmox.Write("101", config);
        Refused(() => Attach()).ShouldHaveSingleItem().Code.ShouldBe(code);
    }

    [Fact]
    public void A_vm_that_a_task_is_at_work_on_is_refused_in_both_directions()
    {
        Attach();
        using var held = Kernel.Proxmox.Lock("101");
        Refused(() => Attach()).ShouldHaveSingleItem().Evidence.ShouldContain(e => e.Contains($"{ProxmoxHost.Worker}", StringComparison.Ordinal));
        Refused(() => Detach()).ShouldHaveSingleItem().Code.ShouldBe("vm-is-locked");
    }

    [Fact]
    public void A_hookscript_of_somebodys_is_refused_with_the_line_that_calls_ours_from_it()
    {
        Kernel.Proxmox.Write("101", Windows + "hookscript: nas:snippets/notify.sh\n");
        Refused(() => Attach()).ShouldHaveSingleItem().Hint.ShouldContain($"{Program} hook \"$1\" \"$2\" || exit $?");
    }

    [Fact]
    public void The_same_hook_on_a_storage_that_all_nodes_share_is_ours_too()
    {
        Kernel.Proxmox.Write("101", Windows + "hookscript: nas:snippets/gpu-handoff\n");
        Attach();
        Config().ShouldContain("hookscript: nas:snippets/gpu-handoff");
    }

    [Fact]
    public void A_vm_that_is_not_here_is_refused_with_where_it_is()
    {
        Kernel.Proxmox.Write("201", "name: far\n", node: "pve2");
        Kernel.AddContainer(ContainerKind.Lxc, "107", "jellyfin").Config = "hostname: media\n";

        Refused(() => Attach(999)).ShouldHaveSingleItem().Evidence.ShouldContain(e => e.Contains("101 (windows)", StringComparison.Ordinal));
        Refused(() => Attach(201)).ShouldHaveSingleItem().What.ShouldBe("VM 201 is on node pve2");
        Refused(() => Attach(107)).ShouldHaveSingleItem().Code.ShouldBe("vm-is-a-container");
        Refused(() => Detach(999)).ShouldHaveSingleItem().Code.ShouldBe("not-attached");
    }

    [Fact]
    public void A_gpu_that_is_not_there_is_refused() => Refused(() => Attach(gpu: "0000:09:00")).ShouldHaveSingleItem().Code.ShouldBe("which-gpu");

    [Fact]
    public void A_host_without_proxmox_is_refused()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var setUp = new SetUp(desk.Kernel, desk.Ledger, new MemoryLedger(), Records, new MemoryLocks(desk.Locks, "9000"), desk.Memo, Program);
        setUp.Attach(new(101), Policy.Default, CancellationToken.None).ShouldBeOfType<Ending.Refused>().Why.Findings.ShouldHaveSingleItem().Code.ShouldBe("no-proxmox");
        desk.Kernel.Calls.ShouldBeEmpty();
    }

    [Fact]
    public void What_would_refuse_every_start_is_refused_now()
    {
        var node = new SetUpDesk(Hosts.NoIommu());
        node.Refused(() => node.Attach()).ShouldContain(f => f.Code == "iommu-off");
        var other = new SetUpDesk(Hosts.WithStranger());
        other.Refused(() => other.Attach()).ShouldContain(f => f.Code == "group-is-shared");
    }

    [Fact]
    public void What_would_refuse_a_start_at_this_moment_is_told_and_no_reason_to_refuse()
    {
        Kernel.OpenNode("/dev/nvidia0", Kernel.StartProcess("blender"));
        NotesOf(Attach()).ShouldContain(n => n.StartsWith("at this moment the VM could not start", StringComparison.Ordinal) && n.Contains("blender", StringComparison.Ordinal));
    }

    [Fact]
    public void A_card_that_is_lent_to_another_vm_may_be_shared_and_both_are_told()
    {
        Kernel.Proxmox.Write("105", "hostpci0: 0000:01:00\nname: linux\n");
        Lend("105");
        var notes = NotesOf(Attach());
        notes.ShouldContain(n => n.Contains("is lent to VM 105", StringComparison.Ordinal));
        notes.ShouldContain(n => n.StartsWith("VM 105 (linux) has the card too (hostpci0)", StringComparison.Ordinal));
    }

    [Fact]
    public void A_vm_that_has_the_card_now_keeps_its_hook()
    {
        Attach();
        Lend("101");
        var finding = Refused(() => Detach()).ShouldHaveSingleItem();
        finding.Code.ShouldBe("gpu-is-lent");
        finding.Hint.ShouldContain("qm shutdown 101");
    }

    [Fact]
    public void A_domain_of_libvirts_with_its_number_is_no_reason_to_keep_the_hook()
    {
        Attach();
        Desk.Ledger.Lend(new(Kernel.BootId, Desk.Survey().Gpus[0].Address, new(VmManager.Libvirt, "101"), [], Kernel.Uptime));
        ChangesOf(Detach()).ShouldBe(3);
    }

    [Fact]
    public void A_host_whose_kernel_has_no_nvidia_is_told_that_only_the_VM_can_use_the_card()
    {
        var host = new SetUpDesk(NeverNvidia());
        var notes = NotesOf(host.Attach());
        notes.ShouldContain(n => n.StartsWith("the VM gets the card, but the host cannot use it in between", StringComparison.Ordinal)
            && n.Contains($"/lib/modules/{host.Kernel.Release})", StringComparison.Ordinal) && n.Contains("proxmox-default-headers", StringComparison.Ordinal));
        host.Config().ShouldContain("hostpci0: ");
    }

    [Theory]
    [InlineData("nvidia has it")]
    [InlineData("nouveau has it")]
    [InlineData("vfio-pci has it")]
    [InlineData("nvidia is not loaded yet")]
    public void Where_the_card_has_a_driver_or_may_have_it_nobody_misses_nvidia(string why) => NotesOf(new SetUpDesk(why switch
    {
        "nvidia is not loaded yet" => new HostBuilder().With(Hosts.Card(1)).WithNvidiaDriver(new()).WithoutModuleFile("nouveau").Loading("snd_hda_intel").Boot(),
        "nvidia has it" => Hosts.SingleGpu(),
        "nouveau has it" => new HostBuilder().With(Hosts.Card(1)).Loading("nouveau", "snd_hda_intel").Boot(),
        _ => Dedicated(),
    }).Attach()).ShouldNotContain(n => n.Contains("the host cannot use it", StringComparison.Ordinal));

    static SimulatedKernel NeverNvidia() => new HostBuilder().With(Hosts.Card(1)).WithoutModuleFile("nouveau").Loading("snd_hda_intel").Boot();

    static SimulatedKernel Dedicated()
    {
        var kernel = NeverNvidia();
        new Desk(kernel).Done(Target.Vfio);
        return kernel;
    }

    [Fact]
    public void Of_a_vm_that_runs_the_card_waits_for_the_next_start_and_can_be_taken_back_before()
    {
        Kernel.Proxmox.Start("101");

        var ending = Attach();

        Config().ShouldContain("[PENDING]\nhostpci0: 0000:01:00,pcie=1,driver=keep");
        Config().ShouldContain("hookscript: local:snippets/gpu-handoff");
        NotesOf(ending).ShouldContain(n => n.StartsWith("it runs", StringComparison.Ordinal));
        ChangesOf(Attach()).ShouldBe(0);

        ChangesOf(Detach()).ShouldBe(3);
        Config().ShouldBe(Windows);
    }

    [Fact]
    public void The_link_stays_until_the_last_vm_that_goes_by_it_is_detached()
    {
        var before = Kernel.Files.Describe();
        Kernel.Proxmox.Write("102", Windows);
        Attach();
        Attach(102);

        NotesOf(Detach()).ShouldContain(n => n.Contains("VM 102", StringComparison.Ordinal));
        Kernel.Link(new(Link)).ShouldBe(Program);
        Detach(102);

        Kernel.Files.Has(Link).ShouldBeFalse();
        Kernel.Proxmox.Remove("102");
        Kernel.Files.Describe().ShouldBe(before);
    }

    [Fact]
    public void A_vm_that_was_destroyed_meanwhile_leaves_no_record_and_no_link()
    {
        Attach();
        Kernel.Proxmox.Remove("101");
        ChangesOf(Detach()).ShouldBe(2);
        Kernel.Files.Has(Link).ShouldBeFalse();
        Records.All().ShouldBeEmpty();
    }

    [Fact]
    public void A_vm_that_is_on_another_node_keeps_its_record_and_its_link_until_it_is_back()
    {
        Attach();
        var config = Config();
        Kernel.Proxmox.Remove("101");
        Kernel.Proxmox.Write("101", config, node: "pve2");

        var finding = Refused(() => Detach()).ShouldHaveSingleItem();
        finding.Code.ShouldBe("vm-is-elsewhere");
        finding.Hint.ShouldContain("qm migrate 101 pve1");
        Kernel.Link(new(Link)).ShouldBe(Program);
    }

    [Fact]
    public void In_a_cluster_the_link_stays_for_vms_that_come_back_to_this_node()
    {
        Attach();
        Kernel.Proxmox.Write("201", Windows + "hookscript: local:snippets/gpu-handoff\n", node: "pve2");

        NotesOf(Detach()).ShouldContain(n => n.Contains(Link, StringComparison.Ordinal) && n.Contains("pve2", StringComparison.Ordinal));

        Kernel.Link(new(Link)).ShouldBe(Program);
        Config().ShouldBe(Windows);
        Records.All().ShouldBeEmpty();
    }

    [Fact]
    public void A_link_of_an_older_installation_is_led_to_this_one_and_back()
    {
        Kernel.Files.Link(Link, "/opt/gpu-handoff");
        NotesOf(Attach()).ShouldContain(n => n.Contains("led to /opt/gpu-handoff", StringComparison.Ordinal));
        Kernel.Link(new(Link)).ShouldBe(Program);
        Detach();
        Kernel.Link(new(Link)).ShouldBe(Program, "it was there before, and another VM may go by it");
    }

    [Fact]
    public void Something_else_under_our_name_is_refused()
    {
        Kernel.Files.Write(Link, "notes of mine");
        Refused(() => Attach()).ShouldHaveSingleItem().Code.ShouldBe("snippet-is-anothers");
    }

    [Theory]
    [InlineData(Program, 1000, 0x1ed)]
    [InlineData(Program, 0, 0x1ff)]
    [InlineData("/var/lib/vz", 0, 0x1f8)]
    [InlineData("/usr/local/sbin", 1000, 0x1ed)]
    public void What_others_than_root_could_change_is_never_made_a_hook(string path, uint owner, uint mode)
    {
        Kernel.Own(path, owner, mode);
        Refused(() => Attach()).ShouldHaveSingleItem().Evidence.ShouldHaveSingleItem().ShouldStartWith(path);
    }

    [Fact]
    public void Another_storage_folder_of_snippets_is_used()
    {
        Kernel.Proxmox.WriteStorages("dir: local\n\tpath /var/lib/vz\n\tcontent iso,snippets\n\tcontent-dirs snippets=deep/hooks\n");
        var plan = SetUp().WouldAttach(new(101), Policy.Default).ShouldBeOfType<Answer.Planned>().Plan;
        plan.Steps().Select(s => s.Say()).Take(3).ShouldBe(
            ["make the folder /var/lib/vz/deep", "make the folder /var/lib/vz/deep/hooks", $"link /var/lib/vz/deep/hooks/gpu-handoff → {Program}"]);
    }

    [Fact]
    public void Two_at_once_do_not_meet()
    {
        var locks = new MemoryLocks(Desk.Locks, "4711 gpu-handoff");
        using var held = locks.Try(LockName, shared: false).ShouldNotBeNull();
        Refused(() => Attach()).ShouldHaveSingleItem().What.ShouldContain("4711");
    }

    static string LockName => GpuHandoff.Proxmox.SetUp.Lock;

    [Fact]
    public void A_configuration_that_is_garbage_is_an_error_and_no_hang()
    {
        Kernel.Proxmox.Write("101", new string('x', 5_000_000));
        Kernel.Proxmox.Write("102", Windows);
        Refused(() => Attach()).ShouldHaveSingleItem().Code.ShouldBe("vm-unreadable");
        ChangesOf(Attach(102)).ShouldBe(3);
    }

    [Fact]
    public void A_cluster_file_system_that_hangs_is_told_and_nothing_is_written()
    {
        Kernel.ClusterHangs = true;
        Attach().ShouldBeOfType<Ending.Unanswered>();
        Kernel.Calls.ShouldBeEmpty();
    }

    void Lend(string vm)
    {
        var gpu = Desk.Survey().Gpus[0].Address;
        Desk.Done(Target.Vfio);
        Kernel.Proxmox.Start(vm, gpu);
        Desk.Ledger.Lend(new(Kernel.BootId, gpu, new(VmManager.Proxmox, vm), [], Kernel.Uptime));
    }
}
