using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Guests.VmHost;

namespace GpuHandoff.Core.Tests.Guests;

/// <summary>A record of a lease that cannot be read says nothing of its own card, and must not hinder what is done with others.</summary>
public class DamagedLeases
{
    const string Named = "lease-0000:02:00.0.json";

    static readonly PciAddress _second = PciAddress.TryParse(Second, out var gpu) ? gpu : default;

    readonly VmHost _host = new VmHost(Hosts.TwoIdenticalGpus()).With("101", "0000:01:00").With("102", "0000:02:00").With("103");

    int Warnings => _host.Desk.Memo.Lines.Count(line => line.StartsWith("warns", StringComparison.Ordinal) && line.Contains(Named));

    [Fact]
    public void Another_VM_starts_and_stops_beside_it_and_each_run_tells_of_it_once()
    {
        _host.Qm.Start("102").ShouldBeNull(_host.Told);
        _host.Desk.Ledger.Spoil(_second);

        _host.Qm.Start("101").ShouldBeNull(_host.Told);
        _host.ShouldHave("101", First);
        Warnings.ShouldBe(1);
        _host.Qm.Stop("101");
        _host.Desk.DriverOf(First).ShouldBe("nvidia");
        Warnings.ShouldBe(2);
        _host.Qm.Log.ShouldContain("101 post-stop 0");
        _host.ShouldHave("102", Second);
    }

    [Fact]
    public void Another_VM_that_died_alone_is_taken_home_by_the_watch_and_by_the_timer()
    {
        _host.Desk.Ledger.Spoil(_second);
        _host.Qm.Start("101").ShouldBeNull(_host.Told);
        _host.Qm.PowerOff("101");
        new Watch(_host.Kernel, _host.Desk.Ledger, () => !_host.Desk.Turn(9002).Reconcile(Policy.Default, waits: false, CancellationToken.None, Guest("101")).IsEmpty, _ => { })
            .Over(Guest("101"), CancellationToken.None);
        _host.Desk.DriverOf(First).ShouldBe("nvidia");

        _host.Qm.Start("101").ShouldBeNull(_host.Told);
        _host.Qm.PowerOff("101");
        _host.Round().ShouldHaveSingleItem();
        _host.Desk.DriverOf(First).ShouldBe("nvidia");
    }

    [Fact]
    public void The_timer_tells_of_it_once_a_boot_and_a_person_hears_of_it_each_time()
    {
        _host.Desk.Ledger.Spoil(_second);
        _host.IsAllWell().ShouldBeFalse();
        _host.Round().ShouldBeEmpty();
        _host.IsAllWell().ShouldBeTrue("it would fill the journal");
        _host.Round().ShouldBeEmpty();
        Warnings.ShouldBe(1);

        for (var times = 2; times < 4; times++)
        {
            Turn.IsAllWell(_host.Kernel, _host.Desk.Ledger, waits: true).ShouldBeFalse();
            _host.Desk.Turn().MakeRounds(Policy.Default, waits: true, CancellationToken.None).ShouldBeEmpty();
            Warnings.ShouldBe(times);
        }
    }

    [Theory]
    [InlineData(Target.Vfio)]
    [InlineData(Target.Host)]
    public void Its_own_card_is_left_alone_until_somebody_has_looked(Target target)
    {
        _host.Desk.Ledger.Spoil(_second);
        var calls = _host.Kernel.Calls.Count;

        var why = _host.Desk.HandOver(target, "0000:02:00.0").ShouldBeOfType<Ending.Refused>().Why;

        why.What.ShouldStartWith(Named);
        why.Findings.ShouldHaveSingleItem().Hint.ShouldContain("remove it");
        _host.Kernel.Calls.Count.ShouldBe(calls);
        _host.Desk.HandOver(target, "0000:01:00.0").ShouldBeOfType<Ending.Ran>();
    }

    [Fact]
    public void Its_own_VM_is_refused_until_the_record_is_gone()
    {
        _host.Desk.Ledger.Spoil(_second);
        _host.Qm.Start("102").ShouldNotBeNull().ShouldContain("pre-start");
        _host.Desk.DriverOf(Second).ShouldBe("nvidia");
        _host.Desk.Ledger.EndLease(_second);
        _host.Qm.Start("102").ShouldBeNull(_host.Told);
    }

    [Fact]
    public void What_a_power_cut_left_is_dropped_after_the_reboot_and_told_of_once()
    {
        _host.Desk.Ledger.Spoil(_second);
        _host.Round();
        Reboots();
        _host.IsAllWell().ShouldBeFalse();

        _host.Round().ShouldBeEmpty();
        _host.Round().ShouldBeEmpty();

        _host.Desk.Ledger.Damaged().ShouldBeEmpty();
        _host.Desk.Memo.Lines.Where(line => line.Contains(Named) && line.Contains("earlier boot")).ShouldHaveSingleItem()
            .ShouldBe($"warns {Named}, line 1: it is empty; it is of an earlier boot, and counts for nothing: it is removed");
        _host.IsAllWell().ShouldBeTrue();
        _host.Qm.Start("102").ShouldBeNull(_host.Told);
        _host.ShouldHave("102", Second);
    }

    [Fact]
    public void A_VM_that_comes_up_with_the_host_does_not_wait_for_the_timer_to_drop_it()
    {
        _host.Desk.Ledger.Spoil(_second);
        Reboots();
        _host.Qm.Start("102").ShouldBeNull(_host.Told);
        _host.ShouldHave("102", Second);
        _host.Desk.Ledger.Damaged().ShouldBeEmpty();
        _host.Leases.ShouldHaveSingleItem();
    }

    void Reboots()
    {
        _host.Kernel.BootId = "11111111-2222-3333-4444-555555555555";
        _host.Desk.Ledger.Ages();
    }

    [Theory]
    [InlineData(103, "pre-start")]
    [InlineData(102, "post-start")]
    [InlineData(102, "post-stop")]
    public void Where_it_may_be_the_reason_that_nothing_is_done_that_is_said(int vm, string phase)
    {
        _host.Desk.Ledger.Spoil(_second);
        HookErrand.Of(new(vm, HookCall.PhaseOf(phase)!.Value), _host.Kernel, _host.Desk.Ledger).ShouldBeOfType<HookErrand.None>().Why
            .ShouldBe($"warning: {Named}, line 1: it is empty\nhint: look at it, and remove it");
    }
}
