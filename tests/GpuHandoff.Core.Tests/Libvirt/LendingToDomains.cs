using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Libvirt;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Libvirt;

/// <summary>A domain's way in libvirt's order: prepare, QEMU, release. Also where the start fails, and where two want one card.</summary>
public class LendingToDomains
{
    const string Gpu = "0000:01:00.0";
    const string Audio = "0000:01:00.1";

    readonly Desk _desk = new(Hosts.SingleGpu());

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_domain_gets_the_card_and_the_host_gets_it_back(bool managed)
    {
        var before = _desk.Picture();

        Prepare("win11", managed).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(_desk.Memo.ToString());
        var lease = _desk.Ledger.Leases().ShouldHaveSingleItem();
        lease.Guest.ShouldBe(new(VmManager.Libvirt, "win11"));
        lease.Functions.Select(f => (f.Function.ToString(), f.Owner.Driver)).ShouldBe([(Gpu, "nvidia"), (Audio, "snd_hda_intel")]);
        // What makes libvirt leave it alone: it is on vfio-pci, and not by libvirt.
        (_desk.DriverOf(Gpu), _desk.DriverOf(Audio)).ShouldBe(("vfio-pci", "vfio-pci"));
        _desk.Kernel.StopVm(StartQemu("win11"));

        Release("win11").ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(_desk.Memo.ToString());
        _desk.Picture().ShouldBe(before);
        _desk.Ledger.Leases().ShouldBeEmpty();
    }

    [Fact]
    public void A_start_that_failed_behind_us_ends_with_release_and_the_card_is_home()
    {
        var before = _desk.Picture();
        Prepare("win11");

        Release("win11").ShouldHaveSingleItem();

        _desk.Picture().ShouldBe(before);
        _desk.Ledger.Leases().ShouldBeEmpty();
    }

    [Fact]
    public void The_release_that_follows_our_own_failure_finds_nothing_to_do()
    {
        var before = _desk.Picture();
        _desk.Kernel.Faults.Refuse(call => call.Contains("vfio-pci/bind") && call.Contains(".0\""), Errno.InputOutput);

        Prepare("win11").ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.RolledBack>();

        _desk.Ledger.Leases().ShouldBeEmpty();
        Release("win11").ShouldBeEmpty();
        _desk.Picture().ShouldBe(before);
    }

    [Theory]
    [InlineData("first", "second")]
    [InlineData("second", "first")]
    public void Of_two_domains_with_one_card_the_later_is_refused_with_the_earliers_name_and_its_release_takes_nothing(string has, string wants)
    {
        Prepare(has);
        StartQemu(has);
        var lent = (_desk.Picture(), _desk.Kernel.Calls.Count);

        var refused = Prepare(wants).ShouldBeOfType<Ending.Refused>().Why;
        refused.Findings.ShouldContain(f => f.Code == "gpu-is-lent" && f.What.Contains($"is lent to VM {has}"));
        // libvirt goes the whole way of a stop after a prepare that failed.
        Release(wants).ShouldBeEmpty();

        (_desk.Picture(), _desk.Kernel.Calls.Count).ShouldBe(lent);
        _desk.Ledger.Leases().ShouldHaveSingleItem().Guest.Id.ShouldBe(has);
    }

    [Fact]
    public void A_card_that_somebody_uses_does_not_go_and_nothing_is_lent()
    {
        _desk.Kernel.OpenNode("/dev/nvidia0", _desk.Kernel.StartProcess("ollama", "/system.slice/ollama.service"));
        var before = _desk.Picture();

        Prepare("win11").ShouldBeOfType<Ending.Refused>().Why.Findings.ShouldContain(f => f.Code == "gpu-in-use");

        _desk.Picture().ShouldBe(before);
        _desk.Ledger.Leases().ShouldBeEmpty();
    }

    [Fact]
    public void Release_waits_for_a_qemu_that_has_not_let_go_yet()
    {
        Prepare("win11");
        var vm = StartQemu("win11");
        _desk.Kernel.Later(TimeSpan.FromSeconds(8), () => _desk.Kernel.StopVm(vm));

        Release("win11").ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(_desk.Memo.ToString());

        _desk.DriverOf(Gpu).ShouldBe("nvidia");
    }

    [Fact]
    public void A_host_that_goes_down_loads_no_driver_for_a_domain_any_more()
    {
        Prepare("win11");
        _desk.Kernel.StopVm(StartQemu("win11"));
        _desk.Kernel.SystemState = "stopping";
        var lent = _desk.Picture();

        Release("win11").ShouldBeEmpty();

        _desk.Picture().ShouldBe(lent);
        _desk.DriverOf(Gpu).ShouldBe("vfio-pci");
        _desk.Memo.ToString().ShouldContain("the host is shutting down: 0000:01:00 stays on vfio-pci");
    }

    [Fact]
    public void A_systemd_that_does_not_answer_keeps_no_card_away()
    {
        var before = _desk.Picture();
        Prepare("win11");
        _desk.Kernel.StopVm(StartQemu("win11"));
        _desk.Kernel.SystemState = null;

        Release("win11").ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(_desk.Memo.ToString());

        _desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_hand_over_that_took_long_uses_up_nothing_of_the_domains_time_to_come_up()
    {
        // Units that end slowly, a drain: the lease is on disk by then.
        _desk.Ledger.Before = what =>
        {
            if (what.StartsWith("open", StringComparison.Ordinal))
                _desk.Kernel.Pause(Tenants.LibvirtTakes + TimeSpan.FromSeconds(30));
        };
        Prepare("win11").ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(_desk.Memo.ToString());
        _desk.Ledger.Before = null;

        _desk.Turn().MakeRounds(Policy.Default, waits: false, CancellationToken.None).ShouldBeEmpty();
        _desk.DriverOf(Gpu).ShouldBe("vfio-pci");

        // One that never came up is not waited for much longer.
        _desk.Kernel.Pause(Tenants.LibvirtTakes);
        _desk.Turn().MakeRounds(Policy.Default, waits: false, CancellationToken.None).ShouldHaveSingleItem();
        _desk.DriverOf(Gpu).ShouldBe("nvidia");
    }

    [Theory]
    [InlineData("libvirtd", false)]
    [InlineData("virtqemud", true)]
    public void A_domain_whose_start_takes_ten_minutes_keeps_its_gpu_while_the_daemon_lives_and_the_gpu_comes_home_when_that_dies(string name, bool throughAScript)
    {
        var before = _desk.Picture();
        var daemon = CalledBy(name, throughAScript);
        Prepare("win11").ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(_desk.Memo.ToString());
        _desk.Kernel.Ourselves = null;
        _desk.Ledger.Leases().ShouldHaveSingleItem().StartedBy.ShouldBe(new(daemon.Pid, daemon.Started));

        // The timer comes every few seconds, and the watch sits there from the hand-over on.
        var looks = 0;
        var died = TimeSpan.Zero;
        _desk.Kernel.Later(TimeSpan.FromMinutes(10), () =>
        {
            looks.ShouldBe(0, "the watch has tried nothing");
            died = _desk.Kernel.Uptime;
            _desk.Kernel.EndProcess(daemon);
        });
        for (var time = TimeSpan.FromSeconds(10); time < TimeSpan.FromMinutes(10); time += TimeSpan.FromSeconds(10))
        {
            _desk.Kernel.Later(time, () =>
            {
                _desk.Turn(9001).MakeRounds(Policy.Default, waits: false, CancellationToken.None).ShouldBeEmpty();
                _desk.DriverOf(Gpu).ShouldBe("vfio-pci");
            });
        }
        new Watch(_desk.Kernel, _desk.Ledger, () =>
        {
            looks++;
            return !_desk.Turn(9002).Reconcile(Policy.Default, waits: false, CancellationToken.None, Call("win11", "prepare", "begin").Guest()).IsEmpty;
        }, what => throw new InvalidOperationException(what)).Over(Call("win11", "prepare", "begin").Guest(), CancellationToken.None);

        looks.ShouldBe(1);
        _desk.Picture().ShouldBe(before);
        _desk.Ledger.Leases().ShouldBeEmpty();
        (_desk.Kernel.Uptime - died).ShouldBeLessThan(TimeSpan.FromSeconds(20));
    }

    [Fact]
    public void A_domain_that_came_up_after_ten_minutes_is_watched_by_its_QEMU_from_then_on()
    {
        var daemon = CalledBy("virtqemud");
        Prepare("win11");
        _desk.Kernel.Pause(TimeSpan.FromMinutes(10));
        _desk.Survey().Loans.ShouldHaveSingleItem().ShouldSatisfyAllConditions(
            l => l.Tenancy.ShouldBe(Tenancy.InMotion), l => l.Evidence.ShouldBe($"it was lent 600 s ago, and libvirt, process {daemon.Pid}, may still be starting it"));
        var vm = StartQemu("win11");
        vm.Process.CommandLine = ["/usr/bin/qemu-system-x86_64", "-name", "guest=win11"];
        _desk.Kernel.Files.Write("/run/libvirt/qemu/win11.pid", $"{vm.Process.Pid}");
        RunningDomain.Note(Call("win11", "started", "begin").Guest(), _desk.Ledger, _desk.Kernel);
        _desk.Kernel.StopVm(vm);

        // libvirt lives, and has not noticed.
        _desk.Survey().Loans.ShouldHaveSingleItem().Tenancy.ShouldBe(Tenancy.Gone);
    }

    [Theory]
    [InlineData("bash", 0u, true)]
    [InlineData("virtqemud", 1000u, true)]
    [InlineData("virtqemud", 0u, false)]
    public void A_call_that_is_not_the_daemons_or_a_daemon_that_was_replaced_leaves_the_domain_a_minute(string name, uint user, bool lives)
    {
        var caller = CalledBy(name);
        caller.User = user;
        Prepare("win11");
        _desk.Kernel.Ourselves = null;
        if (!lives)
        {
            // A restart, in which the new daemon gets the old one's PID.
            _desk.Kernel.EndProcess(caller);
            _desk.Kernel.Pause(TimeSpan.FromSeconds(1));
            _desk.Kernel.StartProcess(name, "/system.slice/virtqemud.service", caller.Pid);
        }
        _desk.Kernel.Pause(Tenants.LibvirtTakes / 2);
        _desk.Survey().Loans.ShouldHaveSingleItem().Tenancy.ShouldBe(Tenancy.InMotion);
        _desk.Kernel.Pause(Tenants.LibvirtTakes / 2);
        _desk.Survey().Loans.ShouldHaveSingleItem().Tenancy.ShouldBe(Tenancy.Gone);
    }

    [Fact]
    public void A_release_that_failed_leaves_the_gpu_to_the_timer_though_the_daemon_lives()
    {
        CalledBy("libvirtd");
        Prepare("win11");
        var isBroken = true;
        _desk.Kernel.Faults.Refuse(call => isBroken && call.Contains("modprobe nvidia"), Errno.InputOutput);
        Release("win11").ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.RolledBack>(_desk.Memo.ToString());
        _desk.Ledger.Leases().ShouldHaveSingleItem().StartedBy.ShouldBeNull();

        isBroken = false;
        _desk.Kernel.Pause(Tenants.LibvirtTakes);
        _desk.Turn().MakeRounds(Policy.Default, waits: false, CancellationToken.None).ShouldHaveSingleItem();
        _desk.DriverOf(Gpu).ShouldBe("nvidia");
    }

    [Fact]
    public void Who_waits_for_a_domain_that_is_just_ending_does_not_keep_its_release_from_the_card()
    {
        Prepare("first");
        _desk.Kernel.StopVm(StartQemu("first"));
        ImmutableArray<Ending> released = [];
        _desk.Kernel.Later(TimeSpan.FromSeconds(2), () => released = Release("first"));

        Prepare("second").ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(_desk.Memo.ToString());

        released.ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>();
        _desk.Ledger.Leases().ShouldHaveSingleItem().Guest.Id.ShouldBe("second");
    }

    [Fact]
    public void A_late_release_takes_nothing_from_another_domain_that_has_the_card_by_now()
    {
        Prepare("first");
        var old = _desk.Ledger.Leases();
        Release("first");
        Prepare("second");

        _desk.Turn().TakeBack(old, Policy.Default, CancellationToken.None).ShouldBeEmpty();

        _desk.DriverOf(Gpu).ShouldBe("vfio-pci");
        _desk.Ledger.Leases().ShouldHaveSingleItem().Guest.Id.ShouldBe("second");
    }

    [Fact]
    public void Prepare_once_more_after_a_start_that_nobody_ended_is_no_trouble()
    {
        Prepare("win11");

        Prepare("win11").ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>();

        // The second time the card was on vfio-pci already: where it comes from is known from the first.
        _desk.Ledger.Leases().ShouldHaveSingleItem().Functions[0].Owner.Driver.ShouldBe("nvidia");
        Release("win11");
        _desk.DriverOf(Gpu).ShouldBe("nvidia");
    }

    [Fact]
    public void A_domain_that_runs_has_its_process_in_its_lease_and_nothing_else_is_touched()
    {
        Prepare("win11");
        var guest = Call("win11", "started", "begin").Guest();
        // Not up yet: nothing to note.
        RunningDomain.Note(guest, _desk.Ledger, _desk.Kernel);
        _desk.Ledger.Leases().ShouldHaveSingleItem().Qemu.ShouldBeNull();

        var vm = StartQemu("win11");
        vm.Process.CommandLine = ["/usr/bin/qemu-system-x86_64", "-name", "guest=win11,debug-threads=on"];
        _desk.Kernel.Files.Write("/run/libvirt/qemu/win11.pid", $"{vm.Process.Pid}");
        var calls = _desk.Kernel.Calls.Count;
        RunningDomain.Note(guest with { Id = "other" }, _desk.Ledger, _desk.Kernel);
        _desk.Ledger.Leases().ShouldHaveSingleItem().Qemu.ShouldBeNull();
        RunningDomain.Note(guest, _desk.Ledger, _desk.Kernel);

        _desk.Ledger.Leases().ShouldHaveSingleItem().Qemu.ShouldNotBeNull().Pid.ShouldBe(vm.Process.Pid);
        _desk.Kernel.Calls.Count.ShouldBe(calls);
        _desk.Kernel.StopVm(vm);
        Release("win11").ShouldHaveSingleItem();
        _desk.Ledger.Leases().ShouldBeEmpty();
    }

    [Theory]
    [InlineData("win 11", "win11")]
    [InlineData("101", "101")]
    public void A_domain_is_known_by_its_QEMUs_command_line_whatever_systemd_makes_of_its_name(string domain, string scope)
    {
        Prepare(domain);
        var vm = StartQemu(scope);
        vm.Process.CommandLine = ["/usr/bin/qemu-system-x86_64", "-name", $"guest={domain},debug-threads=on"];
        // On its way out: its pidfile is gone, and it has the group still.
        _desk.Survey().Loans.ShouldHaveSingleItem().Lease.Qemu.ShouldNotBeNull().Pid.ShouldBe(vm.Process.Pid);
        Prepare(domain).ShouldBeOfType<Ending.Ran>(_desk.Memo.ToString());

        vm.Process.CommandLine = ["/usr/bin/qemu-system-x86_64", "-name", "guest=other"];
        _desk.Survey().Loans.ShouldHaveSingleItem().Lease.Qemu.ShouldBeNull();
        Prepare(domain).ShouldBeOfType<Ending.Refused>().Why.Findings.ShouldHaveSingleItem().Code.ShouldBe("gpu-is-lent");
    }

    [Fact]
    public void Two_cards_of_one_domain_go_and_come_together()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        var before = desk.Picture();
        var domain = new Domain("win11", [new(new(0, 2, 0, 0), false), new(new(0, 1, 0, 0), true)]);

        desk.Turn().Lend(Call("win11", "prepare", "begin").Guest(), domain.Gpus(Surveyor.Cards(desk.Kernel)), Policy.Default, CancellationToken.None)
            .ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());
        (desk.DriverOf(Gpu), desk.DriverOf("0000:02:00.0")).ShouldBe(("vfio-pci", "vfio-pci"));

        desk.Turn().TakeBack(desk.Ledger.Leases(), Policy.Default, CancellationToken.None).Length.ShouldBe(2);
        desk.Picture().ShouldBe(before);
        desk.Ledger.Leases().ShouldBeEmpty();
    }

    Ending Prepare(string name, bool managed = false)
    {
        var domain = Domain.Parse(ReadingDomains.With("domain='0x0000' bus='0x01' slot='0x00' function='0x0'", name, managed));
        return _desk.Turn().Lend(
            Call(name, "prepare", "begin").Guest(), domain.Gpus(Surveyor.Cards(_desk.Kernel)), Policy.Default, CancellationToken.None);
    }

    ImmutableArray<Ending> Release(string name)
    {
        var guest = Call(name, "release", "end").Guest();
        return _desk.Turn().TakeBack([.. _desk.Ledger.Leases().Where(l => l.Guest == guest)], Policy.Default, CancellationToken.None);
    }

    static HookCall Call(string name, string operation, string stage) => HookCall.Of([name, operation, stage, "-"]).ShouldNotBeNull();

    /// <summary>We are the hook that this process runs.</summary>
    SimulatedProcess CalledBy(string name, bool throughAScript = false)
    {
        var caller = _desk.Kernel.StartProcess(name, "/system.slice/virtqemud.service");
        var parent = caller;
        if (throughAScript)
        {
            parent = _desk.Kernel.StartProcess("qemu", "/system.slice/virtqemud.service");
            parent.Parent = caller.Pid;
        }
        _desk.Kernel.Ourselves = _desk.Kernel.StartProcess("gpu-handoff", "/system.slice/virtqemud.service");
        _desk.Kernel.Ourselves.Parent = parent.Pid;
        return caller;
    }

    SimulatedVm StartQemu(string name) => _desk.Kernel.StartVm(
        name, [.. _desk.Survey().Gpus[0].Functions.Select(f => f.Address)], $@"/machine.slice/machine-qemu\x2d3\x2d{name}.scope/libvirt/emulator");
}
