using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Steps;
using GpuHandoff.Survey;

namespace GpuHandoff.Runs;

/// <summary>One wish from its words to its end: choose the cards, wait for the turn, tidy up after a crash, plan, act.</summary>
/// <param name="footprint">Where what it changes is noted; null: in one of its own.</param>
public sealed class Turn(IKernel kernel, ILedger ledger, ILocks locks, IWitness witness, Footprint? footprint = null)
{
    /// <summary>The lock for what the cards share: whether nvidia's modules may go depends on all of them.</summary>
    public const string Modules = "modules";

    static readonly TimeSpan _toAmend = TimeSpan.FromSeconds(5);
    static readonly TimeSpan _betweenLooks = TimeSpan.FromMilliseconds(500);

    readonly Marks _marks = new(kernel, ledger, witness);
    readonly Lending _lending = new(kernel, ledger, witness, footprint ??= new());

    /// <summary>What it has changed on the machine so far.</summary>
    public Footprint Footprint { get; } = footprint;

    internal bool IsHostStopping() => HostUnits.HostIsStopping(kernel);

    public Ending HandOver(Target target, string? selector, PolicySet policy, CancellationToken stop)
    {
        try
        {
            if (Selection.Of(Surveyor.Cards(kernel), selector) is not Selection.Chosen { Gpus: var cards })
                return new Ending.Refused(Unclear(selector));
            return Guarded(new(target, [.. cards.Select(g => g.Address)]), policy, stop)!;
        }
        catch (KernelSilent silent)
        {
            return _marks.Unanswered(silent);
        }
    }

    /// <summary>Hands cards over to a VM that is about to start, and writes down that they are lent to it.</summary>
    /// <param name="forBackup">It starts for its backup alone.</param>
    public Ending Lend(Guest guest, ImmutableArray<PciAddress> gpus, PolicySet policy, CancellationToken stop, bool forBackup = false) =>
        Guarded(new(Target.Vfio, gpus) { For = guest, ForBackup = forBackup }, policy, stop)!;

    /// <summary>Writes down what was found out of a loan since; or tells why that was not done.</summary>
    public string? Amend(Lease lease, Func<Lease, Lease> change, CancellationToken stop)
    {
        using var turn = new Holding(kernel, locks, witness, _toAmend, stop);
        turn.Take([lease.Gpu]);
        if (turn.Refusal is { } busy)
            return $"{busy.What}: {string.Join(", ", busy.Findings.Select(f => f.What))}";
        if (_lending.LeaseOf(lease.Gpu) is not { } now || !lease.IsSameAs(now))
            return $"{lease.Gpu} is no longer lent to {lease.Guest}";
        witness.WriteDown(() => ledger.Lend(change(now)));
        return null;
    }

    /// <summary>
    /// Takes back what was lent, as far as these very leases still hold: a VM that was started anew meanwhile keeps its cards.
    /// Waits for a VM that has not let go yet. On a host that is going down all stays where it is.
    /// </summary>
    public ImmutableArray<Ending> TakeBack(ImmutableArray<Lease> leases, PolicySet policy, CancellationToken stop)
    {
        // Drivers that come up only to go down again gain nothing, and one that hangs then keeps the host from going down.
        if (leases is not [] && IsHostStopping())
        {
            witness.Tells($"the host is shutting down: {string.Join(", ", leases.Select(l => l.Gpu.Slot))} stays on {Owner.Vfio}, and no driver is loaded any more");
            return [];
        }
        return
        [
            .. leases.Select(lease => Guarded(
                new(Target.Host, [lease.Gpu]) { For = lease.Guest, Ends = lease, Still = _ => lease.IsSameAs(_lending.LeaseOf(lease.Gpu)) }, policy, stop)).OfType<Ending>(),
        ];
    }

    /// <inheritdoc cref="Leftovers.Recover"/>
    public ImmutableArray<Ending> Recover(PolicySet policy, bool wait, CancellationToken stop) => Leftovers().Recover(policy, wait, stop);

    /// <inheritdoc cref="Rounds.Make"/>
    public ImmutableArray<Ending> MakeRounds(PolicySet policy, bool waits, CancellationToken stop) => Rounds().Make(policy, waits, stop);

    /// <inheritdoc cref="Rounds.Reconcile"/>
    public ImmutableArray<Ending> Reconcile(PolicySet policy, bool waits, CancellationToken stop, Guest? guest = null) =>
        Rounds().Reconcile(policy, waits, stop, guest);

    /// <inheritdoc cref="Rounds.IsAllWell"/>
    public static bool IsAllWell(IKernel kernel, ILedger ledger, bool waits) => Runs.Rounds.IsAllWell(kernel, ledger, waits);

    /// <inheritdoc cref="Marks.Unwedge"/>
    public ImmutableArray<Ending> Unwedge() => _marks.Unwedge();

    Leftovers Leftovers() => new(kernel, ledger, locks, witness, _marks, Footprint);

    Rounds Rounds() => new(kernel, ledger, witness, this, Leftovers(), _marks);

    /// <summary>Null: it is not wanted any more, or somebody else is at work and it does not wait.</summary>
    internal Ending? Guarded(Errand errand, PolicySet policy, CancellationToken stop)
    {
        try
        {
            // Before any lock: the helper process that hangs in the call has the card's, and no run may wait for that.
            if (_marks.Wedged(errand.Gpus, errand.Target) is { } stuck)
                return errand.Waits ? new Ending.Refused(stuck) : null;
            if (_marks.Damaged(errand.Gpus) is { } damaged)
                return new Ending.Refused(damaged);
            _marks.TellOfDamage(errand.Waits);
            return Take(errand, policy, stop);
        }
        catch (KernelSilent silent)
        {
            return _marks.Unanswered(silent);
        }
        // A full disk, mostly. The other cards have records of their own; the lease stays, and with it whoever looks after it.
        catch (Exception trouble) when (trouble is LedgerRefused or KernelRefused)
        {
            // Not into the lease, as other troubles: its lock is no longer ours.
            return errand is { IsUnasked: true, Waits: false } && errand.Gpus.All(gpu => !ledger.IsNews(gpu, trouble.Message))
                ? null
                : Ending.Refused.Of(trouble);
        }
    }

    Ending? Take(Errand errand, PolicySet policy, CancellationToken stop)
    {
        var gpus = errand.Gpus;
        var began = kernel.Uptime;
        using var turn = new Holding(kernel, locks, witness, errand.Waits ? policy.Limits().Total : TimeSpan.Zero, stop)
        {
            IsInVain = gpu => _lending.OnItsWay(gpu, errand),
        };
        turn.Take(gpus.Concat(Leftovers().Touching(gpus).SelectMany(u => u.Plan.Gpus)));
        if (turn.Refusal is not null && !errand.Waits)
            return null;
        if (turn.Refusal is null)
        {
            if (errand.Ends is { } ended)
                _lending.NoteEnd(ended);
            Leftovers().EndWhatDidNotEnd(gpus, turn, policy);
        }
        return Decide(errand, policy, turn, began, stop);
    }

    Answer.Refused Unclear(string? selector)
    {
        // Once more with names: the list is for a person.
        var machine = Surveyor.Survey(kernel, [], target: null, ledger.Wedges());
        // A GPU may have come to the bus, or left it, since the first look.
        var unclear = Selection.Of(machine, selector) as Selection.Unclear
            ?? new("the GPUs of this host have changed while they were looked at", [], "try again");
        return new(unclear.What, [new("which-gpu", unclear.What, unclear.Evidence, unclear.Hint)]);
    }

    Ending? Decide(Errand errand, PolicySet policy, Holding turn, TimeSpan began, CancellationToken stop)
    {
        var (target, gpus) = (errand.Target, errand.Gpus);
        var until = kernel.Uptime + (errand.Waits ? policy.Everywhere().Patience : TimeSpan.Zero);
        if (began + policy.Limits().Total is var end && end < until)
            until = end;
        var told = false;
        while (true)
        {
            // Whoever had the locks while we waited for a VM may have died with the card in hand.
            if (told && turn.Refusal is null)
                Leftovers().EndWhatDidNotEnd(gpus, turn, policy);
            using var modules = turn.TakeModules();
            if (modules is null)
                return errand.Waits ? new Ending.Refused(turn.Refusal!) : null;
            var machine = Surveyor.Survey(kernel, ledger.Homes(), target, ledger.Wedges(), ledger.Leases());
            if (errand.IsUnasked)
                _lending.NoteWhoRuns(machine, gpus);
            if (!errand.Still(machine))
                return null;
            if (errand.For is { } guest && _lending.Left(guest, gpus, machine) is { } left)
                return _lending.Told(errand, left);
            if (policy.Strangers(machine) is not [])
                machine = Surveyor.WithUuids(machine, kernel);
            machine = Surveyor.WithLost(machine, gpus, kernel);
            var goal = new Goal(target, [.. machine.Gpus.Where(g => gpus.Contains(g.Address))]) { For = errand.For };
            switch (Planner.Plan(machine, goal, policy))
            {
                case Answer.Planned { Plan: var plan } when ChangesModules(plan) ? modules.IsAlone() : modules.Share():
                    if (target == Target.Host)
                        gpus.Select(_lending.LeaseOf).ToList().ForEach(lease => _lending.TellWhatLeft(lease, machine));
                    witness.Begins(plan);
                    return new Ending.Ran(plan, _lending.Run(plan, goal, machine, errand, policy, began, stop));
                case Answer.Planned:
                    // Somebody else came in between: the plan may be out of date.
                    turn.WantsModulesAlone();
                    continue;
                case Answer.Refused refused when kernel.Uptime >= until || stop.IsCancellationRequested
                    || refused.Findings.Any(f => !MayPass(f, errand, machine)):
                    return _lending.Told(errand, refused);
                case Answer.Refused refused:
                    if (!told)
                        witness.Waits($"waiting for a VM to let go: {string.Join(", ", refused.Findings.SelectMany(f => f.Evidence))}");
                    told = true;
                    break;
            }
            modules.Dispose();
            // The end of that VM may be another run's work, which needs the card's lock for it.
            turn.LetOthers(_betweenLooks);
        }
    }

    /// <summary>Whether it is worth waiting: a VM is about to let go, or its manager is at work on it and it will either have the card or not.</summary>
    /// <remarks>One that is expected back will have it, or is minutes late: that is too long to wait for.</remarks>
    bool MayPass(Finding finding, Errand errand, Machine machine) => finding.Code == VmHasTheGpu.Check.Code
        || (finding.Code == GpuIsLent.Check.Code && machine.Loans.Any(l => errand.Gpus.Contains(l.Lease.Gpu) && l.Tenancy == Tenancy.InMotion
            && !(errand.IsForAStart() && Lending.IsStarting(l)) && !(l.Lease.ExpectedBack?.Until > kernel.Uptime)));

    static bool ChangesModules(Plan plan) => plan.Steps().Any(s => s switch
    {
        LoadModule or UnloadModule or LoadDriver or UnloadDriver => true,
        // A GPU's own node is its own business; /dev/nvidiactl and the like belong to all of them.
        RemoveNodes { Nodes: var nodes } => !nodes.All(IsOfOneGpu),
        MakeNodes { Nodes: var nodes } => !nodes.All(IsOfOneGpu),
        _ => false,
    });

    // /dev/nvidia0
    static bool IsOfOneGpu(NamedNode node) => node.Path.StartsWith("/dev/nvidia", StringComparison.Ordinal)
        && int.TryParse(node.Path.AsSpan("/dev/nvidia".Length), NumberStyles.None, CultureInfo.InvariantCulture, out _);
}
