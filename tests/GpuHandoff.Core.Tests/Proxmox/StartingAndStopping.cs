using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Proxmox;

/// <summary>VMs of a Proxmox host from start to stop, with the hook in them.</summary>
public class StartingAndStopping
{
    const string Gpu = "0000:01:00.0";
    const string Other = "0000:02:00.0";

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_VM_gets_the_GPU_for_its_run_and_the_host_has_it_back_afterwards(bool isLegacy)
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu(), isLegacy).With("101", "hostpci0: 0000:01:00,pcie=1");
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        desk.DriverOf(Gpu).ShouldBe("vfio-pci");
        var lease = desk.Ledger.Leases().ShouldHaveSingleItem();
        lease.Guest.ToString().ShouldBe("VM 101 (vm101)");
        lease.Qemu!.Pid.ShouldBe(desk.Kernel.Proxmox.Qemu("101")!.Pid);
        desk.Qm.Stop("101").ShouldBeNull();
        desk.Qm.Cleanup();
        desk.Qm.Log.ShouldBe(["101 pre-start 0", "101 post-start 0", "101 pre-stop 0", "101 post-stop 0"]);
        desk.ShouldBeHome(before);
    }

    [Fact]
    public void A_second_pre_start_while_the_VM_runs_leaves_its_lease_whole_and_no_second_watch()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00,pcie=1");
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        desk.Ledger.Lend(desk.Ledger.Leases()[0] with { Pinned = ["CPU 0 on 4"] });
        var (lease, writes) = (desk.Ledger.Leases().ShouldHaveSingleItem(), desk.Writes);
        desk.Desk.Memo.Watched.Count.ShouldBe(1);
        desk.Kernel.Pause(TimeSpan.FromHours(1));

        desk.Call(101, "pre-start").ShouldBe(0, desk.Told);

        desk.Ledger.Leases().ShouldHaveSingleItem().ShouldBe(lease);
        lease.Qemu.ShouldNotBeNull();
        (desk.Desk.Memo.Watched.Count, desk.Writes).ShouldBe((1, writes));
        desk.Qm.Stop("101").ShouldBeNull();
        desk.Qm.Cleanup();
        desk.ShouldBeHome(before);
    }

    // SysFSTools.pm:pci_dev_group_bind_to_vfio writes new_id for what is not on vfio-pci by then, and nobody takes it out again.
    [Theory]
    [InlineData("hostpci0: 0000:01:00,pcie=1")]
    [InlineData("hostpci0: 01:00.0")]
    [InlineData("hostpci0: 0000:01:00.0;0000:01:00.1,x-vga=on")]
    [InlineData("hostpci0: 01:00.1")]
    [InlineData("hostpci0: 01:00,driver=keep")]
    public void After_the_hook_Proxmox_has_nothing_left_to_bind_and_leaves_no_dynamic_ID(string line)
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", line);
        desk.ShouldStart("101");
        desk.Kernel.DynamicIdsOf("vfio-pci").ShouldBe(0);
    }

    [Fact]
    public void A_VM_without_a_GPU_starts_and_stops_and_nothing_is_written()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "cores: 2", "net0: virtio=AA:BB:CC:DD:EE:FF,bridge=vmbr0");
        desk.ShouldStart("101");
        desk.Qm.Stop("101");
        desk.Writes.ShouldBe(0);
        desk.Kernel.Asked.ShouldBeEmpty();
        desk.Ledger.Leases().ShouldBeEmpty();
    }

    [Fact]
    public void A_VM_with_another_device_than_a_GPU_is_no_business_of_ours()
    {
        var desk = new ProxmoxDesk(Hosts.WithStranger()).With("101", "hostpci0: 0000:00:01.0");
        desk.Call(101, "pre-start").ShouldBe(0);
        desk.Writes.ShouldBe(0);
    }

    [Fact]
    public void A_template_is_left_alone_even_in_a_backup()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00", "lock: backup", "template: 1");
        desk.Call(101, "pre-start").ShouldBe(0);
        desk.Call(101, "post-stop").ShouldBe(0);
        desk.Writes.ShouldBe(0);
    }

    [Fact]
    public void A_container_with_the_hook_starts_and_nothing_is_written()
    {
        var desk = new ProxmoxDesk(Hosts.LxcByConfig());
        foreach (var phase in HookCall.Phases)
            desk.Call(201, phase).ShouldBe(0, phase);
        desk.Writes.ShouldBe(0);
    }

    // Case 56.
    [Theory]
    [InlineData("pre-stop")]
    [InlineData("post-start")]
    [InlineData("pre-freeze")]
    [InlineData("post-migrate")]
    public void Phases_with_nothing_to_do_write_nothing(string phase)
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        desk.Call(101, phase).ShouldBe(0);
        desk.ShouldStart("101");
        var writes = desk.Writes;
        desk.Call(101, phase).ShouldBe(0);
        desk.Writes.ShouldBe(writes);
    }

    // Case 60.
    [Fact]
    public void A_second_VM_with_the_GPU_is_refused_by_the_name_of_the_first_which_is_undisturbed()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00").With("102", "hostpci0: 0000:01:00.0");
        desk.ShouldStart("101");
        var (picture, writes) = (desk.Kernel.Describe(), desk.Writes);
        desk.Qm.Start("102").ShouldNotBeNull();
        desk.Qm.Log.Last().ShouldBe("102 pre-start 1");
        desk.Words.ShouldContain("VM 101 (vm101)");
        (desk.Kernel.Describe(), desk.Writes).ShouldBe((picture, writes));
        desk.Kernel.Proxmox.Qemu("101").ShouldNotBeNull();
        desk.Ledger.Leases().ShouldHaveSingleItem().Guest.Id.ShouldBe("101");
    }

    [Fact]
    public void A_second_VM_that_starts_while_the_first_is_still_being_given_the_GPU_is_refused_at_once()
    {
        var desk = new ProxmoxDesk(Hosts.BusyServices()).With("101", "hostpci0: 0000:01:00").With("102", "hostpci0: 0000:01:00");
        desk.Policy = Policy.Default with { Users = UsersPolicy.Default with { Units = Treatment.Restart } };
        desk.Kernel.Unit("ollama.service").StopTakes = TimeSpan.FromSeconds(8);
        var (why, took) = ((string?)null, TimeSpan.MaxValue);
        desk.Kernel.Later(TimeSpan.FromSeconds(2), () =>
        {
            var began = desk.Kernel.Uptime;
            why = desk.Qm.Start("102");
            took = desk.Kernel.Uptime - began;
        });
        desk.ShouldStart("101");
        why.ShouldNotBeNull().ShouldContain("pre-start");
        took.ShouldBeLessThan(TimeSpan.FromSeconds(1));
        desk.Words.ShouldContain("is lent to VM 101 (vm101)");
        desk.Qm.Log.ShouldBe(["102 pre-start 1", "101 pre-start 0", "101 post-start 0"]);
        desk.Ledger.Leases().ShouldHaveSingleItem().Guest.Id.ShouldBe("101");
    }

    [Fact]
    public void A_second_VM_that_starts_before_the_QEMU_of_the_first_is_refused_at_once()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00").With("102", "hostpci0: 0000:01:00");
        using var locked = desk.Kernel.Proxmox.Lock("101");
        desk.Call(101, "pre-start").ShouldBe(0, desk.Words);
        var began = desk.Kernel.Uptime;
        desk.Qm.Start("102").ShouldNotBeNull().ShouldContain("pre-start");
        (desk.Kernel.Uptime - began).ShouldBeLessThan(TimeSpan.FromSeconds(1));
        desk.Words.ShouldContain("is lent to VM 101 (vm101)");
    }

    [Theory]
    [InlineData("101", "102")]
    [InlineData("102", "101")]
    public void Two_VMs_take_turns_with_one_GPU(string first, string second)
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00").With("102", "hostpci0: 0000:01:00");
        var before = desk.Desk.Picture();
        foreach (var vm in (string[])[first, second, first])
        {
            desk.ShouldStart(vm);
            desk.Qm.Stop(vm).ShouldBeNull();
            desk.Qm.Cleanup();
            desk.ShouldBeHome(before);
        }
    }

    [Fact]
    public void A_VM_that_Proxmox_keeps_the_GPU_for_is_named_though_we_know_nothing_of_it()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00").With("102", "hostpci0: 0000:01:00");
        var qemu = desk.Kernel.Proxmox.Start("102");
        desk.Kernel.Proxmox.Reserve("0000:01:00.0", "102", $"pid:{qemu.Pid}");
        desk.Qm.Start("101").ShouldNotBeNull();
        desk.Words.ShouldContain($"VM 102 (vm102), which runs as process {qemu.Pid}");
        desk.Writes.ShouldBe(0);
    }

    [Theory]
    [InlineData("pid:77777")]
    [InlineData("time:1000000000")]
    public void A_reservation_that_is_left_over_stops_nobody(string claim)
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00").With("102");
        desk.Kernel.Proxmox.Reserve("0000:01:00.0", "102", claim);
        desk.Call(101, "pre-start").ShouldBe(0, desk.Words);
    }

    // Case 51.
    [Fact]
    public void A_post_stop_that_comes_twice_or_without_a_start_hands_back_once()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        var before = desk.Desk.Picture();
        desk.Call(101, "post-stop").ShouldBe(0);
        desk.Writes.ShouldBe(0);
        desk.ShouldStart("101");
        desk.Qm.Stop("101");
        var writes = desk.Writes;
        desk.Call(101, "post-stop").ShouldBe(0);
        desk.Writes.ShouldBe(writes);
        desk.ShouldBeHome(before);
    }

    // Case 52.
    [Fact]
    public void A_post_stop_while_QEMU_has_the_GPU_waits_for_its_limit_and_unbinds_nothing()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        desk.ShouldStart("101");
        var (writes, began) = (desk.Writes, desk.Kernel.Uptime);
        desk.Call(101, "post-stop").ShouldBe(1);
        (desk.Kernel.Uptime - began).ShouldBeInRange(Policy.Default.Patience, Policy.Default.Patience + TimeSpan.FromSeconds(5));
        desk.Writes.ShouldBe(writes);
        desk.Words.ShouldContain("a VM has 0000:01:00");
        desk.Ledger.Leases().ShouldNotBeEmpty();
    }

    [Fact]
    public void A_post_stop_that_comes_before_QEMU_has_let_go_waits_for_it()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        desk.Kernel.Later(TimeSpan.FromSeconds(8), () => desk.Kernel.Proxmox.Kill("101"));
        desk.Call(101, "post-stop").ShouldBe(0, desk.Words);
        desk.ShouldBeHome(before);
    }

    // Case 53.
    [Fact]
    public void A_reboot_keeps_the_GPU_on_vfio_pci_and_binds_nothing_anew()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        var (writes, first) = (desk.Writes, desk.Kernel.Proxmox.Qemu("101")!.Pid);
        desk.Qm.Reboot("101").ShouldBeNull();
        desk.Qm.Cleanup().ShouldBeNull();
        desk.Kernel.Proxmox.Qemu("101")!.Pid.ShouldNotBe(first);
        desk.Writes.ShouldBe(writes);
        desk.Told.ShouldContain("VM 101 (vm101) comes back (it is being rebooted): 0000:01:00 stays on vfio-pci for it, for 3 minutes at most");
        desk.Ledger.Leases().ShouldHaveSingleItem().Qemu!.Pid.ShouldBe(desk.Kernel.Proxmox.Qemu("101")!.Pid);
        desk.Qm.Stop("101");
        desk.ShouldBeHome(before);
    }

    [Fact]
    public void A_reboot_returns_the_GPU_in_between_if_the_policy_says_so()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        desk.Policy = Policy.Default with { AtReboot = AtReboot.Return };
        desk.ShouldStart("101");
        var bound = Count("nvidia/bind");
        desk.Qm.Reboot("101");
        desk.Qm.Cleanup().ShouldBeNull();
        desk.DriverOf(Gpu).ShouldBe("vfio-pci");
        (Count("nvidia/bind") + Count("modprobe nvidia")).ShouldBeGreaterThan(bound);
        int Count(string word) => desk.Kernel.Calls.Count(call => call.Contains(word));
    }

    [Fact]
    public void A_host_that_goes_down_loads_no_driver_any_more()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        desk.ShouldStart("101");
        desk.Kernel.SystemState = "stopping";
        var writes = desk.Writes;
        desk.Qm.Stop("101");
        desk.Writes.ShouldBe(writes);
        desk.DriverOf(Gpu).ShouldBe("vfio-pci");
        desk.Told.ShouldContain("the host is shutting down: 0000:01:00 stays on vfio-pci");
    }

    [Fact]
    public void A_systemd_that_does_not_answer_keeps_no_card_away_and_kills_no_hook_and_no_timer()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        desk.Kernel.SystemState = null;
        desk.Qm.Stop("101");
        desk.ShouldBeHome(before);

        desk.ShouldStart("101");
        desk.Kernel.Proxmox.Kill("101");
        desk.Desk.Turn().MakeRounds(Policy.Default, waits: false, CancellationToken.None).ShouldHaveSingleItem();
        desk.DriverOf(Gpu).ShouldBe("nvidia");
    }

    [Fact]
    public void A_folder_of_leases_that_cannot_be_trusted_keeps_no_VM_off_that_has_no_GPU()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00").With("102", "name: plain");
        desk.Desk.Ledger.Damage = new LedgerRefused("/var/lib/gpu-handoff is not a folder that only its owner may write", "look at it");
        desk.Errand(102, "pre-start").ShouldBeOfType<HookErrand.None>().Why!.ShouldContain("/var/lib/gpu-handoff");
        // Whose GPU it is cannot be told then.
        Should.Throw<LedgerRefused>(() => desk.Errand(101, "pre-start"));
    }

    [Theory]
    [InlineData("hostpci0: 0000:02:00,pcie=1")]
    [InlineData("delete: hostpci0")]
    public void What_comes_home_is_what_was_lent_whatever_the_configuration_says_by_then(string change)
    {
        var desk = new ProxmoxDesk(Hosts.TwoIdenticalGpus()).With("101", "hostpci0: 0000:01:00");
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        desk.Qm.ChangeLater("101", change);
        desk.Qm.Stop("101");
        desk.ShouldBeHome(before);
    }

    [Fact]
    public void A_GPU_that_was_taken_from_the_configuration_over_a_lost_post_stop_comes_home_with_the_next_start()
    {
        var desk = new ProxmoxDesk(Hosts.TwoIdenticalGpus(), isLegacy: true).With("101", "hostpci0: 0000:01:00");
        desk.ShouldStart("101");
        desk.Kernel.Proxmox.Kill("101");
        desk.With("101", "hostpci0: 0000:02:00");
        desk.ShouldStart("101");
        (desk.DriverOf(Gpu), desk.DriverOf(Other)).ShouldBe(("nvidia", "vfio-pci"));
        desk.Ledger.Leases().ShouldHaveSingleItem().Gpu.ToString().ShouldBe(Other);
        desk.Told.ShouldContain("no longer has 0000:01:00");
    }

    [Fact]
    public void A_GPU_that_is_left_over_from_the_last_run_comes_home_though_the_VM_wants_none_any_more()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        desk.Kernel.Proxmox.Kill("101");
        desk.With("101", "cores: 2");
        desk.ShouldStart("101");
        desk.ShouldBeHome(before);
    }

    [Fact]
    public void A_quick_start_after_a_lost_post_stop_finds_the_GPU_in_its_place()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu(), isLegacy: true).With("101", "hostpci0: 0000:01:00");
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        var writes = desk.Writes;
        desk.Qm.Stop("101");
        desk.ShouldStart("101");
        desk.Writes.ShouldBe(writes);
        // qmeventd's clean-up of the first run finds a VM that runs, and gives up.
        desk.Qm.Cleanup().ShouldNotBeNull();
        desk.Qm.Stop("101");
        desk.Qm.Cleanup();
        desk.ShouldBeHome(before);
    }

    [Fact]
    public void A_start_that_cannot_take_the_GPU_ends_with_everything_as_it_was()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        var before = desk.Desk.Picture();
        desk.Kernel.Faults.Refuse(call => call.Contains("vfio-pci/bind"), Errno.InputOutput);
        desk.Qm.Start("101").ShouldNotBeNull().ShouldContain("pre-start");
        desk.Qm.Log.Last().ShouldBe("101 pre-start 3");
        desk.ShouldBeHome(before);
    }

    [Fact]
    public void A_start_that_is_stopped_on_the_way_ends_with_everything_as_it_was()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "hostpci0: 0000:01:00");
        var before = desk.Desk.Picture();
        using var stop = new CancellationTokenSource();
        desk.Stop = stop.Token;
        desk.Kernel.Faults.Before(call => call.Contains("vfio-pci/bind"), _ => stop.Cancel());
        desk.Call(101, "pre-start").ShouldBe(ExitCode.RolledBack);
        desk.ShouldBeHome(before);
    }

    [Fact]
    public void The_whole_of_a_group_goes_where_Proxmox_binds_it_whole()
    {
        var desk = new ProxmoxDesk(Hosts.FourFunctions()).With("101", "hostpci0: 0000:01:00.2");
        desk.ShouldStart("101");
        foreach (var function in (string[])["0000:01:00.0", "0000:01:00.1", "0000:01:00.2", "0000:01:00.3"])
            desk.DriverOf(function).ShouldBe("vfio-pci");
    }

    [Fact]
    public void A_neighbour_that_the_VM_is_given_too_goes_with_the_GPU_and_comes_home_with_it()
    {
        var desk = new ProxmoxDesk(ProxmoxDesk.GpuBesideUsb()).With("101", "hostpci0: 0000:01:00");
        var before = desk.Desk.Picture();
        desk.Call(101, "pre-start").ShouldBe(1);
        desk.Words.ShouldContain("0000:05:00.0");
        desk.With("101", "hostpci0: 0000:01:00", "hostpci3: 0000:05:00.0");
        desk.ShouldStart("101");
        desk.DriverOf("0000:05:00.0").ShouldBe("vfio-pci");
        desk.Kernel.DynamicIdsOf("vfio-pci").ShouldBe(0);
        desk.Qm.Stop("101").ShouldBeNull();
        desk.ShouldBeHome(before);
    }

    [Fact]
    public void A_disk_in_the_group_stays_with_the_host_though_the_VM_is_given_it_too()
    {
        var desk = new ProxmoxDesk(Hosts.WithStranger()).With("101", "hostpci0: 0000:01:00");
        desk.Errand(101, "pre-start").ShouldBeOfType<HookErrand.HandOver>().Neighbours.ShouldBeEmpty();
        desk.With("101", "hostpci0: 0000:01:00", "hostpci3: 0000:05:00.0");
        desk.Errand(101, "pre-start").ShouldBeOfType<HookErrand.HandOver>().Neighbours.ShouldBe([new(ProxmoxDesk.At("0000:05:00.0"), "hostpci3")]);
        // The host's disk is not among what may be accepted: Proxmox would take it from under the host.
        desk.Call(101, "pre-start").ShouldBe(1);
        desk.Words.ShouldContain("a storage controller is not taken from the host");
        desk.Writes.ShouldBe(0);
    }

    [Fact]
    public void A_GPU_in_the_group_of_another_device_of_the_VM_goes_with_it() =>
        new ProxmoxDesk(Hosts.WithStranger()).With("101", "hostpci0: 0000:05:00.0").Errand(101, "pre-start")
            .ShouldBeOfType<HookErrand.HandOver>().Gpus.ShouldBe([ProxmoxDesk.At(Gpu)]);

    // Proxmox's reservations name the other device alone, and QEMU has the group. A controller stands in the card's lease, another card has its own.
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_GPU_that_went_because_of_its_group_is_its_VMs_until_the_stop(bool ofAnotherCard)
    {
        var desk = new ProxmoxDesk(ofAnotherCard ? ProxmoxDesk.TwinsInOneGroup() : ProxmoxDesk.GpuBesideUsb())
            .With("101", ofAnotherCard ? "hostpci0: 0000:02:00" : "hostpci0: 0000:05:00.0");
        var before = desk.Desk.Picture();
        desk.ShouldStart("101");
        desk.Kernel.Proxmox.Qemu("101").ShouldNotBeNull();
        desk.DriverOf(Gpu).ShouldBe("vfio-pci");
        desk.Ledger.Leases().ShouldAllBe(l => l.Qemu!.Pid == desk.Kernel.Proxmox.Qemu("101")!.Pid);
        desk.Told.ShouldNotContain("Proxmox has chosen another");
        desk.Told.ShouldNotContain("warns");
        desk.Told.ShouldNotContain("waits");
        desk.Qm.Stop("101").ShouldBeNull();
        desk.ShouldBeHome(before);
    }

    [Fact]
    public void A_device_in_args_is_taken_with_a_word_about_it()
    {
        var desk = new ProxmoxDesk(Hosts.SingleGpu()).With("101", "args: -cpu host -device vfio-pci,host=01:00.0,multifunction=on");
        desk.Call(101, "pre-start").ShouldBe(0, desk.Words);
        desk.DriverOf(Gpu).ShouldBe("vfio-pci");
        desk.Told.ShouldContain("args gives the VM 0000:01:00.0: Proxmox neither binds nor reserves that");
    }
}
