using GpuHandoff.Core.Tests.Proxmox;
using GpuHandoff.Goals;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Guests;

/// <summary>Between the end of a VM and its next start, where Proxmox makes the one for the other: a reboot, a backup in mode stop.</summary>
public class ComingBack
{
    const string Gpu = "0000:01:00.0";

    static readonly string[] _locked = ["hostpci0: 0000:01:00", "lock: backup"];

    readonly ProxmoxDesk _desk = new ProxmoxDesk(Hosts.BusyServices()).With("101", "hostpci0: 0000:01:00").With("102", "hostpci0: 0000:01:00");
    readonly string _before;

    public ComingBack()
    {
        _before = _desk.Desk.Picture();
        _desk.Policy = Policy.Default with { Users = UsersPolicy.Default with { Units = Treatment.Restart } };
        _desk.ShouldStart("101");
    }

    void Rounds(TimeSpan time)
    {
        for (var until = _desk.Kernel.Uptime + time; _desk.Kernel.Uptime < until; _desk.Kernel.Pause(TimeSpan.FromSeconds(10)))
            _desk.Desk.Turn(9001).MakeRounds(_desk.Policy, waits: false, CancellationToken.None).ShouldBeEmpty(_desk.Told);
    }

    void EndForBackup()
    {
        _desk.With("101", _locked);
        _desk.Qm.ShutdownForBackup("101").ShouldBeNull(_desk.Told);
    }

    [Fact]
    public void A_backup_that_prepares_its_storage_for_minutes_finds_the_GPU_where_it_was()
    {
        EndForBackup();
        Rounds(TimeSpan.FromMinutes(4.5));
        _desk.DriverOf(Gpu).ShouldBe("vfio-pci");

        _desk.ShouldStart("101");

        _desk.Ledger.Leases().ShouldHaveSingleItem().ExpectedBack.ShouldBeNull("it is back");
        _desk.With("101", "hostpci0: 0000:01:00").Qm.Stop("101");
        _desk.ShouldBeHome(_before);
    }

    [Fact]
    public void Of_a_VM_that_its_backup_never_starts_again_the_watch_brings_the_GPU_home()
    {
        EndForBackup();
        var ended = _desk.Kernel.Uptime;

        new Watch(_desk.Kernel, _desk.Ledger, () => !_desk.Desk.Turn(9002).Reconcile(_desk.Policy, waits: false, CancellationToken.None).IsEmpty, _ => { })
            .Over(VmHost.Guest("101"), CancellationToken.None);

        _desk.ShouldBeHome(_before);
        (_desk.Kernel.Uptime - ended).ShouldBeInRange(Tenants.BackupTakes, Tenants.BackupTakes + TimeSpan.FromSeconds(30));
    }

    [Fact]
    public void A_reboot_counts_until_the_start_also_when_its_marker_has_gone()
    {
        _desk.Qm.Reboot("101").ShouldBeNull(_desk.Told);
        _desk.Kernel.Files.Remove(ProxmoxHost.RebootMarker("101"));
        _desk.Survey().Loans.ShouldHaveSingleItem().Evidence.ShouldBe("it is being rebooted, and has 180 s left for that");
        Rounds(Tenants.RebootTakes - TimeSpan.FromSeconds(30));

        _desk.ShouldStart("101");
        _desk.Ledger.Leases().ShouldHaveSingleItem().ExpectedBack.ShouldBeNull();

        _desk.Qm.Reboot("101").ShouldBeNull(_desk.Told);
        _desk.Kernel.Pause(Tenants.RebootTakes);
        _desk.Desk.Turn().MakeRounds(_desk.Policy, waits: false, CancellationToken.None).ShouldHaveSingleItem();
        _desk.ShouldBeHome(_before);
    }

    [Fact]
    public void A_post_stop_that_comes_twice_gives_it_no_more_time()
    {
        EndForBackup();
        _desk.Kernel.Pause(TimeSpan.FromMinutes(4));
        _desk.Call(101, "post-stop").ShouldBe(0);
        _desk.Kernel.Pause(TimeSpan.FromMinutes(1));
        _desk.Desk.Turn().MakeRounds(_desk.Policy, waits: false, CancellationToken.None).ShouldHaveSingleItem();
        _desk.ShouldBeHome(_before);
    }

    [Fact]
    public void Whoever_wants_the_card_meanwhile_is_refused_at_once_with_the_reason_and_what_to_do()
    {
        EndForBackup();
        var (since, writes) = (_desk.Kernel.Uptime, _desk.Writes);

        _desk.Call(102, "pre-start").ShouldBe(1);
        _desk.Words.ShouldContain("VM 101");
        var why = _desk.Desk.HandOver(Target.Host, policy: Policy.Default).ShouldBeOfType<Ending.Refused>().Why.Findings.ShouldHaveSingleItem();

        why.What.ShouldBe($"0000:01:00 is lent to VM 101 (vm101)");
        why.Evidence.ShouldHaveSingleItem().ShouldMatch("^its backup starts it anew, and has [0-9]+ s left for that$");
        why.Hint.ShouldBe("wait until VM 101 (vm101) is back and stop it then; if it does not come back in that time the GPU comes home by itself");
        (_desk.Kernel.Uptime - since).ShouldBeLessThan(TimeSpan.FromSeconds(5));
        _desk.Writes.ShouldBe(writes);
    }

    [Fact]
    public void A_person_who_asks_for_what_is_left_hears_why_the_card_stays()
    {
        EndForBackup();
        Turn.IsAllWell(_desk.Kernel, _desk.Ledger, waits: true).ShouldBeFalse();
        Turn.IsAllWell(_desk.Kernel, _desk.Ledger, waits: false).ShouldBeTrue();
        _desk.Desk.Turn().MakeRounds(_desk.Policy, waits: true, CancellationToken.None).ShouldBeEmpty();
        _desk.Told.ShouldContain($"tells {Gpu} stays on vfio-pci for VM 101 (vm101): its backup starts it anew, and has ");
        _desk.DriverOf(Gpu).ShouldBe("vfio-pci");
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void A_post_stop_that_is_killed_in_between_leaves_the_card_to_the_timer(int changes)
    {
        // The old way, where post-stop comes by itself.
        var host = new VmHost(Hosts.SingleGpu(), legacy: true).With("101", "0000:01:00");
        host.Qm.Start("101").ShouldBeNull(host.Told);
        host.Proxmox.Write("101", "hookscript: local:snippets/gpu-handoff\nhostpci0: 0000:01:00\nlock: backup\n");
        host.Qm.ShutdownForBackup("101").ShouldBeNull(host.Told);
        host.KillNextHookAfter(changes);
        host.Qm.Cleanup();

        host.HookWasKilled.ShouldBe(changes == 0);
        (host.Leases.ShouldHaveSingleItem().ExpectedBack is null).ShouldBe(changes == 0);
        if (changes > 0)
        {
            host.Round().ShouldBeEmpty();
            host.Kernel.Pause(Tenants.BackupTakes);
        }
        host.ShouldComeHome();
    }

    // A backup in mode snapshot lasts for an hour, and the lock with it.
    [Theory]
    [InlineData(Ends.Crashes, false)]
    [InlineData(Ends.Crashes, true)]
    [InlineData(Ends.IsStoppedByForce, false)]
    [InlineData(Ends.IsStoppedByForce, true)]
    [InlineData(Ends.PowersItselfOff, false)]
    public void A_VM_that_ends_during_its_backup_is_not_expected_back(Ends how, bool legacy)
    {
        var desk = new ProxmoxDesk(Hosts.BusyServices(), legacy) { Policy = _desk.Policy }.With("101", "hostpci0: 0000:01:00");
        desk.ShouldStart("101");
        desk.With("101", _locked);
        var since = desk.Kernel.Uptime;

        switch (how)
        {
            case Ends.Crashes:
                desk.Qm.Crash("101");
                break;
            case Ends.IsStoppedByForce:
                desk.Qm.Stop("101").ShouldBeNull(desk.Told);
                break;
            default:
                desk.Qm.PowerOff("101");
                break;
        }
        desk.Qm.Cleanup().ShouldBeNull(desk.Told);

        desk.ShouldBeHome(_before);
        desk.Told.ShouldNotContain("backup");
        (desk.Kernel.Uptime - since).ShouldBeLessThan(TimeSpan.FromSeconds(30));
    }

    public enum Ends
    {
        Crashes,
        IsStoppedByForce,
        PowersItselfOff,
    }

    [Fact]
    public void The_old_ways_post_stop_between_the_end_for_a_backup_and_its_start_leaves_the_card_there()
    {
        var desk = new ProxmoxDesk(Hosts.BusyServices(), isLegacy: true) { Policy = _desk.Policy }.With("101", "hostpci0: 0000:01:00");
        desk.ShouldStart("101");
        desk.With("101", _locked).Qm.ShutdownForBackup("101").ShouldBeNull(desk.Told);

        desk.Qm.Cleanup().ShouldBeNull(desk.Told);

        desk.DriverOf(Gpu).ShouldBe("vfio-pci");
        desk.Ledger.Leases().ShouldHaveSingleItem().ExpectedBack.ShouldNotBeNull();
        desk.ShouldStart("101");
    }

    [Theory]
    [InlineData(true, "/usr/bin/perl", "/usr/sbin/qm", "shutdown", "101", "--skiplock", "--keepActive", "--timeout", "600")]
    [InlineData(false, "/usr/bin/perl", "/usr/sbin/qm", "shutdown", "101", "--skiplock")]
    [InlineData(false, "/usr/bin/perl", "/usr/sbin/qm", "shutdown", "102", "--skiplock", "--keepActive", "--timeout", "600")]
    [InlineData(false, "/usr/bin/perl", "/usr/sbin/qm", "stop", "101", "--skiplock", "--keepActive")]
    [InlineData(false, "/usr/bin/perl", "/usr/sbin/qm", "cleanup", "101", "1", "1")]
    [InlineData(false, "/usr/bin/perl", "/usr/sbin/qm", "cleanup")]
    [InlineData(false, "qm")]
    [InlineData(false, "/usr/bin/python3", "stopper.py", "101", "--keepActive")]
    [InlineData(false)]
    public void Who_calls_says_whether_it_is_the_end_for_a_backup_also_through_a_script_of_somebodys(bool isForBackup, params string[] caller)
    {
        _desk.With("101", _locked);
        var (outer, script) = (_desk.Kernel.StartProcess("perl"), _desk.Kernel.StartProcess("own.sh"));
        outer.CommandLine = caller;
        (script.CommandLine, script.Parent) = (["/bin/sh", "/var/lib/vz/snippets/own.sh", "101", "post-stop"], outer.Pid);
        _desk.Kernel.Ourselves = _desk.Kernel.StartProcess("gpu-handoff");
        _desk.Kernel.Ourselves.Parent = script.Pid;

        (_desk.Errand(101, "post-stop").ShouldBeOfType<HookErrand.HandBack>().ComesBack == ComesBack.AfterBackup).ShouldBe(isForBackup);
    }
}
