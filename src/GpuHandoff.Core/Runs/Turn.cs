using System.Collections.Immutable;
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
public sealed class Turn(IKernel kernel, ILedger ledger, ILocks locks, IWitness witness)
{
    /// <summary>The lock for what the cards share: whether nvidia's modules may go depends on all of them.</summary>
    public const string Modules = "modules";

    static readonly TimeSpan _toAmend = TimeSpan.FromSeconds(5);
    static readonly TimeSpan _betweenLooks = TimeSpan.FromMilliseconds(500);

    /// <summary>Whether the host is on its way down. Asking starts a program: who can asks while something else comes up.</summary>
    public Func<bool> IsHostStopping { get; init; } = () => HostIsStopping(kernel);

    bool _hasToldOfDamage;

    public static bool HostIsStopping(IKernel kernel) => HostUnits.HostIsStopping(kernel);

    public Ending HandOver(Target target, string? selector, PolicySet policy, CancellationToken stop)
    {
        try
        {
            if (Selection.Of(Surveyor.Cards(kernel), selector) is not Selection.Chosen { Gpus: var cards })
                return new Ending.Refused(Unclear(selector));
            ImmutableArray<PciAddress> gpus = [.. cards.Select(g => g.Address)];
            // Before any lock: the helper process that hangs in the call has the card's, and nobody shall wait for that.
            if (Wedged(gpus, target) is { } stuck)
                return new Ending.Refused(stuck);
            if (Damaged(gpus) is { } damaged)
                return new Ending.Refused(damaged);
            TellOfDamage(waits: true);
            return Take(new(target, gpus), policy, stop)!;
        }
        catch (KernelSilent silent)
        {
            return Unanswered(silent);
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
        if (LeaseOf(lease.Gpu) is not { } now || !lease.IsSameAs(now))
            return $"{lease.Gpu} is no longer lent to {lease.Guest}";
        WriteDown(() => ledger.Lend(change(now)));
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
                new(Target.Host, [lease.Gpu]) { For = lease.Guest, Still = _ => lease.IsSameAs(LeaseOf(lease.Gpu)) }, policy, stop)).OfType<Ending>(),
        ];
    }

    /// <summary>
    /// Takes back what is lent to VMs that no longer have it and are not about to: the way home from every start that failed and
    /// every end that nobody told us of. On a host that is going down nothing is: loading drivers would only keep it up.
    /// </summary>
    /// <param name="waits">A person asks: also what was tried in vain before, and nothing is left for the next time.</param>
    /// <param name="guest">Only what is lent to this VM; null: to any.</param>
    public ImmutableArray<Ending> Reconcile(PolicySet policy, bool waits, CancellationToken stop, Guest? guest = null)
    {
        DropOtherBoots(stop);
        TellOfDamage(waits);
        foreach (var (lease, evidence) in waits ? Expected(ledger, kernel) : [])
            witness.Tells($"{lease.Gpu} stays on {Owner.Vfio} for {lease.Guest}: {evidence}; it comes home by itself if that VM is not back by then");
        var leases = ledger.Leases().Where(l => (guest is null || l.Guest == guest) && WantsALook(l, waits, kernel)).ToList();
        if (leases.Count > 0 && IsHostStopping())
        {
            witness.Waits("the host is going down: what is lent stays where it is");
            return [];
        }
        return [.. leases.Select(lease => Guarded(Homewards(lease, waits), policy.OfVm(lease.Guest.Id), stop)).OfType<Ending>()];
    }

    /// <summary>
    /// What a timer does: ends what did not end itself, then takes back what is lent to VMs that are gone, and stay so for as
    /// long as their manager may need to notice it.
    /// </summary>
    /// <param name="waits">A person asks: see <see cref="Recover"/> and <see cref="Reconcile"/>.</param>
    public ImmutableArray<Ending> MakeRounds(PolicySet policy, bool waits, CancellationToken stop)
    {
        var ended = Recover(policy, waits, stop);
        if (!waits)
        {
            var boot = Surveyor.BootId(kernel);
            for (var until = kernel.Uptime + Watch.Grace; kernel.Uptime < until && !stop.IsCancellationRequested
                && ledger.Leases().Any(l => l.BootId == boot && Tenants.Glance(l, kernel).Tenancy == Tenancy.Gone);)
            {
                kernel.Pause(TimeSpan.FromSeconds(1));
            }
        }
        return [.. ended, .. Reconcile(policy, waits, stop)];
    }

    static Errand Homewards(Lease lease, bool waits) => new(Target.Host, [lease.Gpu])
    {
        For = lease.Guest,
        Still = machine => machine.Loans.Any(l => l.Lease.IsSameAs(lease) && l.Tenancy == Tenancy.Gone),
        Waits = waits,
        IsUnasked = true,
    };

    /// <summary>Whether locks and a survey are worth while: most of the time a VM just runs.</summary>
    static bool WantsALook(Lease lease, bool waits, IKernel kernel) => (waits || !lease.IsGivenUp()) && Tenants.Glance(lease, kernel) is var loan
        && (loan.Tenancy == Tenancy.Gone || loan.Lease.Qemu != lease.Qemu);

    /// <summary>What is kept for VMs that come back, and why that is believed.</summary>
    static IEnumerable<(Lease Lease, string Evidence)> Expected(ILedger ledger, IKernel kernel) =>
        from lease in ledger.Leases()
        where lease.BootId == Surveyor.BootId(kernel) && lease.ExpectedBack?.Until > kernel.Uptime
        let loan = Tenants.Glance(lease, kernel)
        where loan.Tenancy == Tenancy.InMotion
        select (lease, loan.Evidence);

    /// <summary>Nothing that <see cref="Recover"/> or <see cref="Reconcile"/> would do anything about: seen from a few small files.</summary>
    public static bool IsAllWell(IKernel kernel, ILedger ledger, bool waits)
    {
        var boot = Surveyor.BootId(kernel);
        return !ledger.Unfinished().Any(u => waits || !u.Stuck)
            && !ledger.Leases().Any(l => l.BootId != boot || WantsALook(l, waits, kernel))
            && !(waits && Expected(ledger, kernel).Any())
            && ledger.Damaged().All(d => !waits && ledger.IsKnown(d))
            && !ledger.Homes().Any(h => h.BootId != boot)
            && !ledger.Wedges().Any(w => w.BootId != boot);
    }

    Lease? LeaseOf(PciAddress gpu) => ledger.Leases().FirstOrDefault(l => l.Gpu == gpu);

    /// <summary>What is wanted of known cards.</summary>
    sealed record Errand(Target Target, ImmutableArray<PciAddress> Gpus)
    {
        public Guest? For { get; init; }

        /// <summary>Asked with the locks in hand: whether it is wanted still.</summary>
        public Func<Machine, bool> Still { get; init; } = _ => true;

        public bool ForBackup { get; init; }

        /// <summary>For locks, and for a VM to let go.</summary>
        public bool Waits { get; init; } = true;

        /// <summary>Nobody asked for these very cards: what hinders it is written down, and told once.</summary>
        public bool IsUnasked { get; init; }

        public bool IsForAStart() => Target == Target.Vfio && For is not null;
    }

    /// <summary>Null: it is not wanted any more, or somebody else is at work and it does not wait.</summary>
    Ending? Guarded(Errand errand, PolicySet policy, CancellationToken stop)
    {
        try
        {
            if (Wedged(errand.Gpus, errand.Target) is { } stuck)
                return errand.Waits ? new Ending.Refused(stuck) : null;
            if (Damaged(errand.Gpus) is { } damaged)
                return new Ending.Refused(damaged);
            TellOfDamage(errand.Waits);
            return Take(errand, policy, stop);
        }
        catch (KernelSilent silent)
        {
            return Unanswered(silent);
        }
    }

    Ending? Take(Errand errand, PolicySet policy, CancellationToken stop)
    {
        var gpus = errand.Gpus;
        using var turn = new Holding(kernel, locks, witness, errand.Waits ? policy.Limits().Total : TimeSpan.Zero, stop)
        {
            IsInVain = gpu => OnItsWay(gpu, errand),
        };
        turn.Take(gpus.Concat(Touching(gpus).SelectMany(u => u.Plan.Gpus)));
        if (turn.Refusal is not null && !errand.Waits)
            return null;
        if (turn.Refusal is null)
            EndWhatDidNotEnd(gpus, turn, policy);
        return Decide(errand, policy, turn, stop);
    }

    /// <summary>Ends every run of this boot that did not end itself, and drops what is left of earlier boots.</summary>
    /// <param name="wait">
    /// Wait for a run that is at work, and try once more what an earlier recovery could not end; else leave both alone.
    /// </param>
    public ImmutableArray<Ending> Recover(PolicySet policy, bool wait, CancellationToken stop)
    {
        var endings = ImmutableArray.CreateBuilder<Ending>();
        var recovery = new Recovery(kernel, ledger, witness, policy);
        foreach (var run in ledger.Unfinished().Where(u => wait || !u.Stuck))
        {
            try
            {
                if (EndOne(run, recovery, policy, wait, stop) is { } ending)
                    endings.Add(ending);
            }
            catch (KernelSilent silent)
            {
                // The other runs' cards have locks of their own.
                endings.Add(Unanswered(silent));
            }
        }
        DropOtherBoots(stop);
        return endings.ToImmutable();
    }

    /// <summary>The refusal for cards of which one has a record that cannot be read: a VM may have it.</summary>
    Answer.Refused? Damaged(ImmutableArray<PciAddress> gpus) => ledger.Damaged().FirstOrDefault(d => gpus.Any(d.Concerns)) is { } damaged
        ? new(damaged.What, [new("ledger", damaged.What, [], damaged.Hint)])
        : null;

    /// <summary>Once a run. The timer would fill the log with it, so that for it once a boot is enough.</summary>
    void TellOfDamage(bool waits)
    {
        if (_hasToldOfDamage)
            return;
        _hasToldOfDamage = true;
        foreach (var damaged in ledger.Damaged())
        {
            if (!waits && ledger.IsKnown(damaged))
                continue;
            witness.Warns(damaged.ToString());
            if (!waits)
                WriteDown(() => ledger.Know(damaged));
        }
    }

    /// <summary>The refusal for cards of which one is marked as stuck; null: none is.</summary>
    Answer.Refused? Wedged(ImmutableArray<PciAddress> gpus, Target target)
    {
        var boot = Surveyor.BootId(kernel);
        if (!ledger.Wedges().Any(w => w.BootId == boot && gpus.Any(g => g.SharesSlotWith(w.Gpu))))
            return null;
        var machine = Surveyor.Cards(kernel) with { Wedges = [.. ledger.Wedges().Where(w => w.BootId == boot)] };
        return Planner.Plan(machine, new(target, [.. machine.Gpus.Where(g => gpus.Contains(g.Address))]), Policy.Default) as Answer.Refused;
    }

    Ending? EndOne(Unfinished run, Recovery recovery, PolicySet policy, bool wait, CancellationToken stop)
    {
        if (Wedged(run.Plan.Gpus, run.Plan.Target) is { } stuck)
            return wait ? new Ending.Refused(stuck) : null;
        using var turn = new Holding(kernel, locks, witness, wait ? policy.Limits().Total : TimeSpan.Zero, stop);
        turn.Take(run.Plan.Gpus);
        turn.WantsModulesAlone();
        using var modules = turn.TakeModules();
        // Who has a lock on its card is at work, and no crash.
        if (turn.Refusal is { } busy)
            return wait ? new Ending.Refused(busy) : null;
        // It may have ended while we waited for it, and another have taken its place.
        if (ledger.Unfinished().FirstOrDefault(u => u.Source == run.Source) is not { } still)
            return null;
        if (still.Plan.BootId != Surveyor.BootId(kernel))
        {
            ledger.Close(still, "ended by a reboot");
            return null;
        }
        return still.Plan.Gpus.All(run.Plan.Gpus.Contains) ? recovery.Recover(still) : null;
    }

    /// <summary>Another boot has bound everything anew: its records and marks tell nothing of this one.</summary>
    void DropOtherBoots(CancellationToken stop)
    {
        var boot = Surveyor.BootId(kernel);
        foreach (var gpu in ledger.Wedges().Where(w => w.BootId != boot).Select(w => w.Gpu)
            .Concat(ledger.Homes().Where(h => h.BootId != boot).Select(h => h.Gpu))
            .Concat(ledger.Leases().Where(l => l.BootId != boot).Select(l => l.Gpu)).Distinct().ToList())
        {
            // A run that begins now may put its own record there at this moment.
            using var turn = new Holding(kernel, locks, witness, TimeSpan.Zero, stop);
            turn.Take([gpu]);
            if (turn.Refusal is not null)
                continue;
            if (ledger.Wedges().Any(w => w.Gpu == gpu && w.BootId != boot))
                ledger.Unmark(gpu);
            if (ledger.Homes().Any(h => h.Gpu == gpu && h.BootId != boot))
                ledger.Forget(gpu);
            if (LeaseOf(gpu) is { } lease && lease.BootId != boot)
                ledger.EndLease(gpu);
        }
    }

    /// <summary>
    /// A look that hangs means a device whose lock somebody else's call has: marked, so that no later look hangs there, too.
    /// </summary>
    Ending.Unanswered Unanswered(KernelSilent silent)
    {
        foreach (var gpu in Surveyor.Cards(kernel).Gpus.Where(g => g.Functions.Any(f => silent.Call.Contains(f.Address.ToString(), StringComparison.Ordinal))))
        {
            try
            {
                ledger.Mark(new(Surveyor.BootId(kernel), gpu.Address, silent.Call, silent.Since, silent.Process, []));
            }
            catch (LedgerRefused refused)
            {
                witness.Warns($"{refused.Message}; {refused.Hint}");
            }
        }
        return new(silent);
    }

    /// <summary>Takes the marks off cards whose call has come back since; refuses for those where it has not.</summary>
    public ImmutableArray<Ending> Unwedge()
    {
        var boot = Surveyor.BootId(kernel);
        var endings = ImmutableArray.CreateBuilder<Ending>();
        foreach (var wedge in ledger.Wedges().Where(w => w.BootId == boot))
        {
            if (wedge.Process is not { } process || ProcessStat.Lives(process.Pid, process.Started, kernel))
            {
                var what = $"{wedge.Gpu} is still stuck";
                var evidence = wedge.Process is { Pid: var pid }
                    ? $"process {pid} is still in: {wedge.Call}"
                    : $"nobody wrote down which process is in it: {wedge.Call}";
                endings.Add(new Ending.Refused(new(what, [new(
                    GpuIsWedged.Check.Code, what, [evidence], "reboot the host: the kernel cannot be made to let go")])));
                continue;
            }
            ledger.Unmark(wedge.Gpu);
            witness.Warns($"{wedge.Gpu} no longer counts as stuck: the call has come back ({wedge.Call})");
        }
        return endings.ToImmutable();
    }

    void EndWhatDidNotEnd(ImmutableArray<PciAddress> gpus, Holding turn, PolicySet policy)
    {
        var unfinished = Touching(gpus);
        if (unfinished is [])
            return;
        turn.WantsModulesAlone();
        using var modules = turn.TakeModules();
        if (turn.Refusal is not null)
            return;
        // Looked for once more: another run may have ended it meanwhile, or begun one with a card whose lock is not ours.
        foreach (var run in Touching(gpus).Where(u => u.Plan.Gpus.All(turn.Has)))
        {
            witness.Waits($"an earlier run did not end: {run.Plan.Summary}; it is brought to its end first");
            // Whatever comes of it, the plan that follows is made for what is there then.
            new Recovery(kernel, ledger, witness, policy).Recover(run);
        }
    }

    /// <summary>Runs of this boot that did not end and have to do with these cards. A wedged card is left alone.</summary>
    ImmutableArray<Unfinished> Touching(ImmutableArray<PciAddress> gpus)
    {
        var boot = Surveyor.BootId(kernel);
        var wedged = ledger.Wedges().Where(w => w.BootId == boot).Select(w => w.Gpu).ToHashSet();
        return
        [
            .. ledger.Unfinished()
                .Where(u => u.Plan.BootId == boot && u.Plan.Gpus.Any(gpus.Contains) && !u.Plan.Gpus.Any(wedged.Contains)),
        ];
    }

    Answer.Refused Unclear(string? selector)
    {
        // Once more with names: the list is for a person.
        var machine = Surveyor.Survey(kernel, [], target: null, ledger.Wedges());
        var unclear = (Selection.Unclear)Selection.Of(machine, selector);
        return new(unclear.What, [new("which-gpu", unclear.What, unclear.Evidence, unclear.Hint)]);
    }

    Ending? Decide(Errand errand, PolicySet policy, Holding turn, CancellationToken stop)
    {
        var (target, gpus) = (errand.Target, errand.Gpus);
        var until = kernel.Uptime + (errand.Waits ? policy.Everywhere().Patience : TimeSpan.Zero);
        var told = false;
        while (true)
        {
            // Whoever had the locks while we waited for a VM may have died with the card in hand.
            if (told && turn.Refusal is null)
                EndWhatDidNotEnd(gpus, turn, policy);
            using var modules = turn.TakeModules();
            if (modules is null)
                return errand.Waits ? new Ending.Refused(turn.Refusal!) : null;
            var machine = Surveyor.Survey(kernel, ledger.Homes(), target, ledger.Wedges(), ledger.Leases());
            if (errand.IsUnasked)
                NoteWhoRuns(machine, gpus);
            if (!errand.Still(machine))
                return null;
            if (errand.For is { } guest && Left(guest, gpus, machine) is { } left)
                return Told(errand, left);
            if (policy.Strangers(machine) is not [])
                machine = Surveyor.WithUuids(machine, kernel);
            var goal = new Goal(target, [.. machine.Gpus.Where(g => gpus.Contains(g.Address))]) { For = errand.For };
            switch (Planner.Plan(machine, goal, policy))
            {
                case Answer.Planned { Plan: var plan } when ChangesModules(plan) ? modules.IsAlone() : modules.Share():
                    if (target == Target.Host)
                        gpus.Select(LeaseOf).ToList().ForEach(lease => TellWhatLeft(lease, machine));
                    witness.Begins(plan);
                    return new Ending.Ran(plan, Run(plan, goal, machine, errand, policy, stop));
                case Answer.Planned:
                    // Somebody else came in between: the plan may be out of date.
                    turn.WantsModulesAlone();
                    continue;
                case Answer.Refused refused when kernel.Uptime >= until || stop.IsCancellationRequested
                    || refused.Findings.Any(f => !MayPass(f, errand, machine)):
                    return Told(errand, refused);
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
            && !(l.Lease.ExpectedBack?.Until > kernel.Uptime) && !(errand.IsForAStart() && IsStarting(l))));

    /// <summary>
    /// Its manager is at work on it, and it has not run yet. libvirt shows no more than the age of the loan, which is the same
    /// for a start that has just failed: there only a hand-over that is at work tells.
    /// </summary>
    static bool IsStarting(Loan loan) => loan is { Tenancy: Tenancy.InMotion, Lease.Qemu: null }
        && (loan.Lease.Guest.Manager == VmManager.Proxmox || loan.Lease.Ready is null);

    /// <summary>
    /// The refusal for a VM's start while another VM that will have the card is being started: who came second is told so at
    /// once, and not when that one runs. Null: nobody starts with it.
    /// </summary>
    Answer.Refused? OnItsWay(PciAddress gpu, Errand errand)
    {
        if (!errand.IsForAStart() || LeaseOf(gpu) is not { } lease || lease.Guest == errand.For || lease.BootId != Surveyor.BootId(kernel)
            || Tenants.Glance(lease, kernel) is not { } loan || !IsStarting(loan))
        {
            return null;
        }
        var machine = Surveyor.Cards(kernel) with { Loans = [loan] };
        return Planner.Plan(machine, new(errand.Target, [.. machine.Gpus.Where(g => errand.Gpus.Contains(g.Address))]) { For = errand.For }, Policy.Default) as Answer.Refused;
    }

    /// <summary>The plan, with the leases written down before its first step and gone after its last one home.</summary>
    Outcome Run(Plan plan, Goal goal, Machine machine, Errand errand, PolicySet policy, CancellationToken stop)
    {
        var before = goal.Gpus.Select(g => (Gpu: g.Address, Lease: LeaseOf(g.Address))).ToList();
        if (goal is { Target: Target.Vfio, For: { } guest })
        {
            var leases = goal.Gpus.Select(g => LeaseFor(guest, g, plan, machine) with
            {
                // One that has the card already was on before its backup began, and is on again after it.
                ForBackup = errand.ForBackup && !before.Exists(b => b.Gpu == g.Address && b.Lease is { ForBackup: false } old
                    && old.Guest == guest && old.BootId == machine.BootId),
            }).ToImmutableArray();
            foreach (var lease in leases)
                ledger.Lend(lease);
            witness.Lends(leases);
        }
        var outcome = new Executor(kernel, ledger, witness, policy.Limits()).Run(plan, stop);
        switch (outcome)
        {
            case Outcome.Done when goal.Target == Target.Host:
                foreach (var (gpu, _) in before.Where(b => b.Lease is not null))
                    WriteDown(() => ledger.EndLease(gpu));
                break;
            // A person has it now: what a VM that is gone has left is nobody's wish any more.
            case Outcome.Done when goal is { Target: Target.Vfio, For: null }:
                foreach (var (gpu, _) in before.Where(b => b.Lease is not null && machine.Loans.Any(l => l.Lease.IsSameAs(b.Lease) && l.Tenancy == Tenancy.Gone)))
                    WriteDown(() => ledger.EndLease(gpu));
                break;
            case Outcome.Done when goal is { Target: Target.Vfio, For: { } tenant }:
                foreach (var lease in goal.Gpus.Select(g => LeaseOf(g.Address)).OfType<Lease>().Where(l => l.Guest == tenant))
                    WriteDown(() => ledger.Lend(lease with { Ready = kernel.Uptime }));
                break;
            // As before means here, too.
            case Outcome.RolledBack when goal is { Target: Target.Vfio, For: not null }:
                foreach (var (gpu, lease) in before)
                    WriteDown(() => PutBack(gpu, lease));
                break;
            case Outcome.RolledBack or Outcome.Stuck when errand is { IsUnasked: true, Waits: false } && !stop.IsCancellationRequested:
                foreach (var lease in before.Select(b => b.Lease).OfType<Lease>())
                    WriteDown(() => ledger.Lend(lease with { Failures = lease.Failures + 1, Trouble = (outcome as Outcome.RolledBack)?.What ?? (outcome as Outcome.Stuck)?.What }));
                break;
        }
        return outcome;
    }

    /// <summary>QEMU's process, where nobody has written it down yet: by this it is known also when it has lost its name.</summary>
    void NoteWhoRuns(Machine machine, ImmutableArray<PciAddress> gpus)
    {
        foreach (var loan in machine.Loans.Where(l => gpus.Contains(l.Lease.Gpu)))
        {
            if (LeaseOf(loan.Lease.Gpu) is { } lease && lease.IsSameAs(loan.Lease) && lease.Qemu != loan.Lease.Qemu)
                WriteDown(() => ledger.Lend(loan.Lease));
        }
    }

    /// <summary>The refusal for cards that are no longer there; null: they are. A plan without them would be empty, and look done.</summary>
    Answer.Refused? Left(Guest guest, ImmutableArray<PciAddress> gpus, Machine machine)
    {
        var missing = gpus.Where(gpu => machine.Gpus.All(g => g.Address != gpu)).ToList();
        if (missing is [])
            return null;
        var what = $"{string.Join(", ", missing)}: no such GPU on the PCI bus";
        return new(what, [new(
            "gpu-left-the-bus", what, [missing.Any(gpu => LeaseOf(gpu)?.Guest == guest) ? $"it is lent to {guest}" : $"{guest} is to have it"],
            "dmesg may tell why it left; echo 1 > /sys/bus/pci/rescan looks for it, and a cold start of the host brings it back")]);
    }

    /// <summary>Functions that were lent with their card and have left the bus: nobody can hand them back.</summary>
    void TellWhatLeft(Lease? lease, Machine machine)
    {
        foreach (var function in (lease?.Functions ?? []).Select(f => f.Function).Where(f => machine.Functions().All(there => there.Address != f)))
            witness.Warns($"{function}, which was lent to {lease!.Guest}, is no longer on the PCI bus; echo 1 > /sys/bus/pci/rescan looks for it");
    }

    /// <summary>A refusal for whoever asked. Where nobody did it is told when it is news, and written down.</summary>
    Ending.Refused? Told(Errand errand, Answer.Refused refused)
    {
        if (errand is not { IsUnasked: true, Waits: false })
            return new Ending.Refused(refused);
        // Somebody came in between: the next look sees who has it.
        if (refused.Findings.All(f => f.Code == VmHasTheGpu.Check.Code || f.Code == GpuIsLent.Check.Code))
            return null;
        var isNews = false;
        foreach (var lease in errand.Gpus.Select(LeaseOf).OfType<Lease>().Where(l => l.Trouble != refused.What))
        {
            WriteDown(() => ledger.Lend(lease with { Trouble = refused.What }));
            isNews = true;
        }
        return isNews ? new Ending.Refused(refused) : null;
    }

    void PutBack(PciAddress gpu, Lease? before)
    {
        if (before is null)
            ledger.EndLease(gpu);
        else
            ledger.Lend(before);
    }

    /// <summary>A lease that is left over does no harm: the next look finds that nobody has the card.</summary>
    void WriteDown(Action write)
    {
        try
        {
            write();
        }
        catch (LedgerRefused refused)
        {
            witness.Warns($"{refused.Message}; {refused.Hint}");
        }
    }

    Lease LeaseFor(Guest guest, Gpu gpu, Plan plan, Machine machine) => new(
        machine.BootId, gpu.Address, guest,
        (plan.Keep.FirstOrDefault(h => h.Gpu == gpu.Address) ?? machine.HomeOf(gpu))?.Functions
            ?? [.. gpu.Functions.Where(f => !f.Class.IsBridge()).Select(f => new FunctionHome(f.Address, f.Owner))],
        kernel.Uptime);

    static bool ChangesModules(Plan plan) =>
        plan.Steps().Any(s => s is LoadModule or UnloadModule or LoadDriver or UnloadDriver or RemoveNodes or MakeNodes);
}
