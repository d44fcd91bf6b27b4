using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Guests.VmHost;

namespace GpuHandoff.Core.Tests.Guests;

/// <summary>Lent GPUs come home from whatever becomes of their VMs, and from a running one nobody takes them.</summary>
public class ComingHome
{
    static readonly TimeSpan _aWhile = TimeSpan.FromMinutes(5);

    static VmHost One(bool legacy = false) => new VmHost(Hosts.SingleGpu(), legacy).With("101", "0000:01:00");

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_vm_starts_with_the_gpu_and_gives_it_back_when_it_stops(bool legacy)
    {
        var host = One(legacy);
        host.Qm.Start("101").ShouldBeNull(host.Told);
        host.ShouldHave("101", First, "0000:01:00.1");
        host.Leases.ShouldHaveSingleItem().Guest.ShouldBe(Guest("101"));

        host.Qm.Stop("101").ShouldBeNull();
        host.Qm.Cleanup();
        host.ShouldBeHome();
        host.Qm.Log.ShouldBe(["101 pre-start 0", "101 post-start 0", "101 pre-stop 0", "101 post-stop 0"]);
    }

    [Theory]
    [InlineData(StartTrouble.BeforePci)]
    [InlineData(StartTrouble.QemuFails)]
    [InlineData(StartTrouble.WorkerKilled)]
    public void A_start_that_fails_after_pre_start_brings_the_gpu_home_within_half_a_minute(StartTrouble trouble)
    {
        var host = One();
        host.Qm.Start("101", trouble).ShouldNotBeNull();
        host.Leases.ShouldHaveSingleItem();
        host.Qm.Log.ShouldBe(["101 pre-start 0"]);

        host.ShouldComeHome();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_qemu_that_dies_and_a_post_stop_that_never_comes_bring_it_home_within_half_a_minute(bool legacy)
    {
        var host = One(legacy);
        host.Qm.Start("101");
        host.Rounds(_aWhile);
        host.Qm.PowerOff("101", TimeSpan.FromSeconds(3));
        host.Qm.LoseCleanup("101");

        host.ShouldComeHome();
    }

    [Fact]
    public void A_running_vm_is_never_touched_and_the_timer_only_looks()
    {
        var host = One();
        host.Qm.Start("101");
        host.Round();
        var (calls, asked, told) = (host.Kernel.Calls.Count, host.Kernel.Asked.Count, host.Desk.Memo.Lines.Count);
        var locks = 0;
        host.Desk.Ledger.Before = _ => locks++;

        host.Rounds(_aWhile);
        host.IsAllWell().ShouldBeTrue();

        (host.Kernel.Calls.Count, host.Kernel.Asked.Count, host.Desk.Memo.Lines.Count, locks).ShouldBe((calls, asked, told, 0));
        host.ShouldHave("101", First);
    }

    [Fact]
    public void A_vm_that_is_stopped_hears_its_own_hook_and_not_the_timer()
    {
        var host = One(legacy: true);
        host.Qm.Start("101");
        host.Qm.Stop("101");
        host.Kernel.Later(TimeSpan.FromSeconds(2), () => host.Qm.Cleanup());

        host.Round();

        host.ShouldBeHome();
        host.Qm.Log[^1].ShouldBe("101 post-stop 0");
        host.Desk.Memo.Lines.Count(l => l.StartsWith("plan ", StringComparison.Ordinal)).ShouldBe(2, host.Told);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_second_vm_for_the_same_gpu_is_refused_at_once_and_the_first_is_undisturbed(bool legacy)
    {
        var host = One(legacy).With("102", "0000:01:00");
        host.Qm.Start("101");
        var (before, calls) = (host.Kernel.Describe(), host.Kernel.Calls.Count);

        host.Qm.Start("102").ShouldNotBeNull().ShouldContain("hookscript error for 102 on pre-start");

        (host.Kernel.Describe(), host.Kernel.Calls.Count).ShouldBe((before, calls));
        host.Leases.ShouldHaveSingleItem().Guest.ShouldBe(Guest("101"));
        var why = host.Desk.Turn().Lend(Guest("102"), [host.Leases[0].Gpu], Policy.Default, CancellationToken.None).ShouldBeOfType<Ending.Refused>().Why;
        why.Findings.ShouldContain(f => f.Code == "gpu-is-lent" && f.What.Contains("is lent to VM 101"));

        host.Qm.Stop("101");
        host.Qm.Cleanup();
        host.Qm.Start("102").ShouldBeNull(host.Told);
        host.Qm.Stop("102");
        host.Qm.Cleanup();
        host.ShouldBeHome();
    }

    [Fact]
    public void A_second_vm_gets_the_gpu_of_one_that_has_crashed_and_keeps_it_when_the_firsts_post_stop_comes()
    {
        var host = One().With("102", "0000:01:00");
        host.Qm.Start("101");
        host.Qm.PowerOff("101");
        host.Qm.Start("102").ShouldBeNull(host.Told);

        host.Qm.Cleanup("101").ShouldBeNull();
        host.Rounds(_aWhile);
        host.ShouldHave("102", First, "0000:01:00.1");
        host.Leases.ShouldHaveSingleItem().Guest.ShouldBe(Guest("102"));

        host.Qm.Stop("102");
        host.ShouldBeHome();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Whoever_wants_the_gpu_of_a_vm_that_is_just_ending_waits_until_it_has_let_go(bool forAVm)
    {
        var host = One().With("102", "0000:01:00");
        host.Qm.Start("101");
        host.Qm.PowerOff("101", TimeSpan.FromSeconds(6));
        if (forAVm)
            host.Qm.Start("102").ShouldBeNull(host.Told);
        else
            host.Desk.HandOver(Target.Host).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(host.Told);
        host.Desk.Memo.Lines.ShouldContain(l => l.StartsWith("waits waiting for a VM to let go", StringComparison.Ordinal));
    }

    [Fact]
    public void A_post_stop_that_comes_twice_or_late_or_without_a_start_is_fine()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.Stop("101");
        host.Qm.Cleanup();
        var calls = host.Kernel.Calls.Count;

        host.Desk.Turn().TakeBack(host.Leases, Policy.Default, CancellationToken.None).ShouldBeEmpty();
        host.Round().ShouldBeEmpty();

        host.Kernel.Calls.Count.ShouldBe(calls);
        host.ShouldBeHome();
    }

    [Fact]
    public void A_post_stop_whose_lease_was_taken_by_the_timer_or_is_a_newer_starts_does_nothing()
    {
        var host = One();
        host.Qm.Start("101");
        var first = host.Leases;
        host.Qm.PowerOff("101");
        host.ShouldComeHome();
        host.Desk.Turn().TakeBack(first, Policy.Default, CancellationToken.None).ShouldBeEmpty();

        host.Qm.Start("101").ShouldBeNull(host.Told);
        host.Desk.Turn().TakeBack(first, Policy.Default, CancellationToken.None).ShouldBeEmpty();
        host.ShouldHave("101", First);
    }

    [Fact]
    public void A_quick_stop_and_start_whose_post_stop_is_lost_leaves_the_gpu_with_the_vm()
    {
        var host = One(legacy: true);
        host.Qm.Start("101");
        host.Qm.Stop("101");
        host.Qm.Start("101").ShouldBeNull(host.Told);
        host.Qm.Cleanup("101").ShouldNotBeNull().ShouldContain("still running");

        host.Rounds(_aWhile);
        host.ShouldHave("101", First, "0000:01:00.1");

        host.Qm.Stop("101");
        host.Qm.Cleanup();
        host.ShouldBeHome();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_reboot_goes_home_and_back_in_order(bool legacy)
    {
        var host = One(legacy);
        host.Qm.Start("101");
        host.Qm.Reboot("101").ShouldBeNull();
        host.Rounds(TimeSpan.FromSeconds(20));
        host.Qm.Cleanup().ShouldBeNull(host.Told);

        host.ShouldHave("101", First);
        host.Qm.Log.ShouldBe(["101 pre-start 0", "101 post-start 0", "101 pre-stop 0", "101 post-stop 0", "101 pre-start 0", "101 post-start 0"]);
        host.Kernel.Files.Has(ProxmoxHost.RebootMarker("101")).ShouldBeFalse();
    }

    [Fact]
    public void A_reboot_that_never_comes_back_keeps_the_gpu_for_three_minutes_and_not_for_ever()
    {
        var host = One(legacy: true);
        host.Qm.Start("101");
        host.Qm.Reboot("101");
        host.Qm.LoseCleanup("101");
        host.Rounds(TimeSpan.FromMinutes(2));
        host.Leases.ShouldHaveSingleItem("it may still come back");

        host.Kernel.Pause(TimeSpan.FromMinutes(1));
        host.ShouldComeHome();
    }

    [Fact]
    public void A_shutdown_that_times_out_leaves_the_gpu_with_the_vm_that_lives_on()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.Shutdown("101", timesOut: true).ShouldNotBeNull();
        host.Rounds(_aWhile);
        host.ShouldHave("101", First, "0000:01:00.1");
    }

    [Fact]
    public void A_post_stop_while_qemu_still_has_the_group_gives_up_in_time_and_the_gpu_comes_home_when_qemu_is_gone()
    {
        var host = One();
        host.Qm.Start("101");
        var calls = host.Kernel.Calls.Count;
        host.Qm.Stop("101", dies: false);
        host.Qm.Log[^1].ShouldBe("101 post-stop 1");
        host.Rounds(_aWhile);
        host.Kernel.Calls.Count.ShouldBe(calls, "an unbind would hang");
        host.Leases.ShouldHaveSingleItem();

        host.Proxmox.Kill("101");
        host.ShouldComeHome();
    }

    [Fact]
    public void A_config_that_changed_meanwhile_brings_back_what_was_lent_and_not_what_it_says_by_now()
    {
        var host = new VmHost(Hosts.TwoIdenticalGpus()).With("101", "0000:01:00");
        host.Qm.Start("101").ShouldBeNull(host.Told);
        host.Qm.ChangeLater("101", "hostpci0: 0000:02:00");
        host.Qm.Stop("101");

        host.Proxmox.Config("101").ShouldNotBeNull().ShouldContain("hostpci0: 0000:02:00");
        host.ShouldBeHome();
    }

    [Fact]
    public void A_stopping_host_takes_nothing_back_and_says_so()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.PowerOff("101");
        host.Kernel.SystemState = "stopping";
        var calls = host.Kernel.Calls.Count;

        host.Round().ShouldBeEmpty();

        host.Kernel.Calls.Count.ShouldBe(calls);
        host.Desk.Memo.Lines[^1].ShouldBe("waits the host is going down: what is lent stays where it is");
        host.Leases.ShouldHaveSingleItem();
        host.Kernel.SystemState = "degraded";
        host.ShouldComeHome();
    }

    [Fact]
    public void Another_boot_ends_every_lease_without_a_write_to_the_machine()
    {
        var host = One();
        host.Qm.Start("101");
        var calls = host.Kernel.Calls.Count;
        host.Kernel.BootId = "11111111-2222-3333-4444-555555555555";
        host.IsAllWell().ShouldBeFalse();

        host.Round().ShouldBeEmpty();

        host.Leases.ShouldBeEmpty();
        host.Kernel.Calls.Count.ShouldBe(calls);
        host.IsAllWell().ShouldBeTrue();
    }

    [Fact]
    public void A_person_who_takes_the_gpu_of_a_vm_that_is_gone_keeps_it()
    {
        var host = One();
        host.Qm.Start("101", StartTrouble.QemuFails);
        host.Desk.HandOver(Target.Vfio).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>();
        host.Leases.ShouldBeEmpty();

        host.Rounds(_aWhile);
        host.Desk.DriverOf(First).ShouldBe(Owner.Vfio);
        host.Desk.HandOver(Target.Host);
        host.ShouldBeHome();
    }

    [Fact]
    public void A_person_who_hands_it_back_ends_the_lease_and_may_not_while_the_vm_has_it()
    {
        var host = One();
        host.Qm.Start("101");
        host.Desk.HandOver(Target.Host).ShouldBeOfType<Ending.Refused>().Why.Findings.ShouldContain(f => f.What.Contains("is lent to VM 101"));
        host.Qm.PowerOff("101");
        host.Desk.HandOver(Target.Host).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(host.Told);
        host.ShouldBeHome();
    }

    [Fact]
    public void A_card_that_left_the_bus_is_named_once_by_the_timer_and_each_time_to_a_person()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.PowerOff("101");
        foreach (var function in new[] { "0000:01:00.1", First })
            host.Kernel.Elsewhere(k => k.Write(new($"/sys/bus/pci/devices/{function}/remove"), "1", TimeSpan.FromSeconds(5)));

        var why = host.Round().ShouldHaveSingleItem().ShouldBeOfType<Ending.Refused>().Why;
        why.What.ShouldBe($"{First}: no such GPU on the PCI bus");
        why.Findings.ShouldHaveSingleItem().Evidence.ShouldBe(["it is lent to VM 101 (vm101)"]);
        host.Round().ShouldBeEmpty();
        host.Desk.Turn().TakeBack(host.Leases, Policy.Default, CancellationToken.None).ShouldHaveSingleItem().ShouldBeOfType<Ending.Refused>();
        host.Desk.Turn().Reconcile(Policy.Default, waits: true, CancellationToken.None).ShouldHaveSingleItem().ShouldBeOfType<Ending.Refused>();
        host.Leases.ShouldHaveSingleItem().Trouble.ShouldBe(why.What);

        host.Kernel.Elsewhere(k => k.Write(new("/sys/bus/pci/rescan"), "1", TimeSpan.FromSeconds(5)));
        // That it was taken off the bus under vfio-pci was not our doing.
        host.Kernel.Hazards.Clear();
        host.ShouldComeHome();
    }

    [Fact]
    public void A_sibling_that_left_the_bus_is_named_and_the_rest_comes_home()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.PowerOff("101");
        host.Kernel.Elsewhere(k => k.Write(new("/sys/bus/pci/devices/0000:01:00.1/remove"), "1", TimeSpan.FromSeconds(5)));

        host.Round().ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(host.Told);

        host.Desk.Memo.Lines.ShouldContain(l => l.StartsWith("warns 0000:01:00.1, which was lent to VM 101 (vm101), is no longer on the PCI bus", StringComparison.Ordinal));
        host.Desk.DriverOf(First).ShouldBe("nvidia");
        host.Leases.ShouldBeEmpty();
    }

    [Fact]
    public void A_gpu_that_will_not_come_home_is_tried_three_times_and_then_left_to_a_person()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.PowerOff("101");
        host.Kernel.FailProbe("nvidia", host.Leases[0].Gpu, 5);
        for (var i = 1; i <= 3; i++)
        {
            host.Round().ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.RolledBack>(host.Told);
            host.Leases[0].Failures.ShouldBe(i);
        }
        var calls = host.Kernel.Calls.Count;
        host.Rounds(_aWhile);
        host.Kernel.Calls.Count.ShouldBe(calls);
        host.IsAllWell().ShouldBeTrue();
        host.Leases[0].Trouble.ShouldNotBeNull();

        host.Kernel.FailProbe("nvidia", host.Leases[0].Gpu, 0);
        host.Desk.Turn().MakeRounds(Policy.Default, waits: true, CancellationToken.None).ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>();
        host.ShouldBeHome();
    }

    [Fact]
    public void A_round_leaves_a_card_alone_at_which_a_run_is_at_work()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.PowerOff("101");
        var calls = host.Kernel.Calls.Count;
        using (new MemoryLocks(host.Desk.Locks, "4211 gpu-handoff").Try($"gpu-{First}", shared: false))
            host.Round().ShouldBeEmpty();
        host.Kernel.Calls.Count.ShouldBe(calls);
        host.ShouldComeHome();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_card_whose_record_cannot_be_written_is_told_of_once_and_hinders_no_other(bool crashed)
    {
        var host = new VmHost(Hosts.TwoIdenticalGpus()).With("101", "0000:01:00").With("102", "0000:02:00");
        host.Qm.Start("102").ShouldBeNull(host.Told);
        if (crashed)
            host.KillNextHookAfter(12);
        host.Qm.Start("101");
        (host.Desk.Ledger.Unfinished().Length > 0).ShouldBe(crashed);
        host.Qm.PowerOff("101");
        host.Qm.PowerOff("102");
        host.Qm.LoseCleanup("101");
        host.Qm.LoseCleanup("102");
        host.Desk.Ledger.Before = what =>
        {
            if (what.Contains(First, StringComparison.Ordinal))
                throw new LedgerRefused($"{First}: No space left on device", "make room");
        };

        var endings = host.Round();

        host.Leases.ShouldHaveSingleItem().Gpu.ToString().ShouldBe(First);
        host.Desk.DriverOf(Second).ShouldBe("nvidia");
        endings.OfType<Ending.Refused>().ShouldHaveSingleItem().Why.What.ShouldBe($"{First}: No space left on device");
        host.Round().ShouldBeEmpty("it would be said every ten seconds");
        host.Desk.Turn().MakeRounds(Policy.Default, waits: true, CancellationToken.None).ShouldNotBeEmpty("a person hears of it each time");

        host.Desk.Ledger.Before = null;
        host.ShouldComeHome();
    }

    [Theory]
    [InlineData("lend 0000:02:00.0")]
    [InlineData("keep 0000:01:00.0")]
    [InlineData("keep 0000:02:00.0")]
    [InlineData("open journal-0000:01:00.0")]
    public void A_start_whose_records_do_not_fit_on_the_disk_is_refused_and_leaves_none_behind(string write)
    {
        var host = new VmHost(Hosts.TwoIdenticalGpus()).With("101", "0000:01:00", "0000:02:00");
        host.Desk.Ledger.Before = what =>
        {
            if (what == write)
                throw new LedgerRefused($"{what}: No space left on device", "make room");
        };

        host.Qm.Start("101").ShouldNotBeNull();

        host.ShouldBeHome();
        host.Desk.Ledger.Homes().ShouldBeEmpty();
        host.Desk.Ledger.Before = null;
        host.Qm.Start("101").ShouldBeNull(host.Told);
    }
}
