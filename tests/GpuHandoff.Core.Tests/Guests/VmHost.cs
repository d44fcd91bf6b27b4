using System.Collections.Immutable;
using System.Text.RegularExpressions;
using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Core.Tests.Proxmox;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Guests;

/// <summary>A simulated Proxmox host on which VMs come and go, with the hook and the timer.</summary>
sealed class VmHost
{
    public const string First = "0000:01:00.0";
    public const string Second = "0000:02:00.0";

    readonly Policy _policy;
    int? _life;

    public VmHost(SimulatedKernel kernel, bool legacy = false, Policy? policy = null)
    {
        _policy = policy ?? Policy.Default;
        Desk = new(kernel);
        Home = Desk.Picture();
        kernel.Proxmox.Install();
        Qm = new(kernel, Call) { IsLegacy = legacy };
    }

    public Desk Desk { get; }

    public Qm Qm { get; }

    /// <summary>The machine before any VM came.</summary>
    public string Home { get; }

    public SimulatedKernel Kernel => Desk.Kernel;

    public ProxmoxHost Proxmox => Kernel.Proxmox;

    public ImmutableArray<Lease> Leases => Desk.Ledger.Leases();

    public Loan Loan => Desk.Survey().Loans.ShouldHaveSingleItem();

    /// <summary>All of the tool's runs, in words.</summary>
    public string Told => $"{string.Join('\n', Qm.Log)}\n{Desk.Memo}";

    /// <summary>The next hook is killed after so many changes, of the machine or of its records.</summary>
    public void KillNextHookAfter(int changes) => _life = changes;

    /// <summary>Whether the hook that was to be killed was, and not done before.</summary>
    public bool HookWasKilled { get; private set; }

    /// <summary>A VM that gets these devices, with the hookscript.</summary>
    public VmHost With(string vm, params IReadOnlyList<string> devices)
    {
        Proxmox.Write(vm, $"hookscript: local:snippets/gpu-handoff\n{string.Concat(devices.Select((d, i) => $"hostpci{i}: {d}\n"))}name: vm{vm}\n");
        return this;
    }

    public static Guest Guest(string vm) => new(VmManager.Proxmox, vm);

    int Call(string vm, string phase)
    {
        if (_life is not { } life)
            return Hook(Kernel, Desk.Turn(), vm, phase);
        _life = null;
        var exit = 137;
        HookWasKilled = Mortal.Dies(Desk, life, mortal => exit = Hook(mortal, Desk.Turn(666, mortal), vm, phase));
        return HookWasKilled ? 137 : exit;
    }

    int Hook(IKernel kernel, Turn turn, string vm, string phase) => ProxmoxDesk.Exit(new Hook(kernel, Desk.Ledger, turn, Desk.Memo).Carry(
        HookErrand.Of(new(int.Parse(vm), HookCall.PhaseOf(phase)!.Value), kernel, Desk.Ledger), _policy, CancellationToken.None));

    /// <summary>The timer comes once; nobody waits for anything.</summary>
    public ImmutableArray<Ending> Round() => Desk.Turn(9001).MakeRounds(_policy, waits: false, CancellationToken.None);

    public bool IsAllWell() => Turn.IsAllWell(Kernel, Desk.Ledger, waits: false);

    /// <summary>The timer comes every ten seconds, for so long.</summary>
    public void Rounds(TimeSpan time)
    {
        for (var until = Kernel.Uptime + time; Kernel.Uptime < until; Kernel.Pause(TimeSpan.FromSeconds(10)))
            Round();
    }

    /// <summary>Half a minute in which nobody does anything, and then all must be as before.</summary>
    public void ShouldComeHome(string told = "")
    {
        var since = Kernel.Uptime;
        Kernel.Pause(TimeSpan.FromSeconds(10));
        Round();
        if (!Leases.IsEmpty)
        {
            Kernel.Pause(TimeSpan.FromSeconds(10));
            Round();
        }
        ShouldBeHome(told);
        (Kernel.Uptime - since).ShouldBeLessThan(TimeSpan.FromSeconds(30), told + Told);
    }

    public void ShouldBeHome(string told = "")
    {
        Leases.ShouldBeEmpty(told + Told);
        Desk.Ledger.Unfinished().ShouldBeEmpty(told + Told);
        Numberless(Desk.Picture()).ShouldBe(Numberless(Home), told + Told);
        Kernel.Hazards.ShouldBeEmpty(told);
        Desk.Locks.IsFree().ShouldBeTrue(told);
    }

    /// <summary>Two cards that were both away may come back in another order, and count from there.</summary>
    static string Numberless(string picture) => Regex.Replace(picture, @"(minor|sound)=\d+", "$1=N");

    public void ShouldHave(string vm, params IReadOnlyList<string> functions)
    {
        Proxmox.Qemu(vm).ShouldNotBeNull(Told);
        foreach (var function in functions)
            Desk.DriverOf(function).ShouldBe(Owner.Vfio, Told);
    }
}
