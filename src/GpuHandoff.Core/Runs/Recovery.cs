using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Steps;
using GpuHandoff.Survey;

namespace GpuHandoff.Runs;

/// <summary>
/// Brings a run that was killed to one of the two ends that people know: handed over completely, or on the host. Whoever
/// calls this holds the locks that the run had.
/// </summary>
sealed class Recovery(IKernel kernel, ILedger ledger, IWitness witness, PolicySet policy, Footprint footprint)
{
    static readonly TimeSpan _betweenLooks = TimeSpan.FromMilliseconds(100);

    public Ending Recover(Unfinished run)
    {
        var before = footprint.Count;
        // A card that is known to be stuck has been waited for long enough.
        var boot = Surveyor.BootId(kernel);
        if (ledger.Wedges().Any(w => w.BootId == boot && run.Plan.Gpus.Contains(w.Gpu)) && Plan(run, run.Plan.Target) is Answer.Refused stuck)
            return new Ending.Refused(stuck);
        AwaitLastCall();
        if (Missing(run) is { Length: > 0 } missing)
        {
            BringBack(missing);
            if (Missing(run) is { Length: > 0 } lost)
                return Lost(run, lost);
        }
        // Complete but for the last word of its diary: a VM may have the card by now.
        var answer = Plan(run, run.Plan.Target);
        if (answer is Answer.Planned { Plan: var rest } && rest.IsEmpty())
        {
            WriteDown(() => ledger.Close(run, "was complete"), before);
            return new Ending.Ran(rest, new Outcome.Done(0));
        }

        Ending? first = null;
        foreach (var attempt in Ways(run))
        {
            var ending = attempt();
            // A way that was refused changed nothing; one that was tried and got stuck is what a person has to know of.
            if (first is null || (first is Ending.Refused && ending is not Ending.Refused))
                first = ending;
            switch (ending)
            {
                case Ending.Ran { Outcome: Outcome.Done }:
                    Settle(run, before);
                    return ending;
                case Ending.Ran { Outcome: Outcome.Stuck { Silent: true } }:
                    return ending;
            }
        }
        // Counted: the timer does not try it over and over.
        if (ledger.Unfinished().FirstOrDefault(u => u.Source == run.Source) is { } left)
            WriteDown(() => ledger.Stick(left), before);
        return first!;
    }

    /// <summary>What was done stays done where that cannot be written; where nothing was, the caller is refused.</summary>
    void WriteDown(Action write, int before) => witness.WriteDown(write, isDone: footprint.Count > before);

    /// <summary>
    /// Functions of the run's cards that have left the bus: killed between a removal and its rescan. A record of another
    /// boot may tell of a card that has been taken out since.
    /// </summary>
    ImmutableArray<PciAddress> Missing(Unfinished run) =>
    [
        .. run.Plan.Gpus
            .Concat(run.Plan.Keep.Concat(ledger.Homes()).Where(h => h.BootId == run.Plan.BootId && run.Plan.Gpus.Contains(h.Gpu))
                .SelectMany(h => h.Functions).Select(f => f.Function))
            .Distinct().Where(f => Surveyor.OwnerOf(f, kernel) is null).Order(),
    ];

    void BringBack(ImmutableArray<PciAddress> missing)
    {
        witness.Waits($"{string.Join(", ", missing)} left the bus in the middle of a reset: the bus is scanned again");
        footprint.Add("scan the PCI bus again");
        try
        {
            kernel.Write(Sys.Pci / "rescan", "1", policy.Limits().Reset);
        }
        catch (KernelRefused refused)
        {
            witness.Warns(refused.Message);
        }
    }

    Ending.Refused Lost(Unfinished run, ImmutableArray<PciAddress> lost)
    {
        ledger.Stick(run);
        var what = $"{string.Join(", ", lost)} is lost: it left the bus, and a rescan does not find it";
        return new(new(what, [new(GpuIsLost.Code, what, [$"the run that was killed: {run.Plan.Summary}"], GpuIsLost.Remedy)]));
    }

    /// <summary>
    /// The killed run's helper may still be in its last call. Behind an unbind or a bind a write of ours waits in the
    /// kernel; a module on its way in or out is refused at once (kernel/module/main.c:add_unformed_module, EBUSY).
    /// </summary>
    void AwaitLastCall()
    {
        var until = kernel.Uptime + policy.Limits().Module;
        while (kernel.Uptime < until
            && NvidiaStack.TopDown.Any(m => Surveyor.StateOf(m, kernel) is ModuleState.Loading or ModuleState.Unloading))
        {
            kernel.Pause(_betweenLooks);
        }
    }

    /// <summary>The best end first. Back to the host is best: whoever wanted the card in a VM was told nothing of success.</summary>
    IEnumerable<Func<Ending>> Ways(Unfinished run) => run.Plan.Target == Target.Vfio
        ? [() => TakeBack(run), () => Go(run, Target.Host), () => Go(run, Target.Vfio)]
        : [() => Go(run, Target.Host), () => TakeBack(run)];

    Ending.Ran TakeBack(Unfinished run)
    {
        var outcome = new Executor(kernel, ledger, witness, policy.Limits(), footprint).TakeBack(run);
        return new Ending.Ran(run.Plan, outcome is Outcome.RolledBack ? new Outcome.Done(run.Begun.Length) : outcome);
    }

    Ending Go(Unfinished run, Target target)
    {
        switch (Plan(run, target))
        {
            case Answer.Refused refused:
                return new Ending.Refused(refused);
            case Answer.Planned { Plan: var plan }:
                witness.Begins(plan);
                // Not to be interrupted: it is short, and half of it is what we are here to end.
                return new Ending.Ran(plan, new Executor(kernel, ledger, witness, policy.Limits(), footprint).Run(plan, CancellationToken.None));
            default:
                throw new InvalidOperationException("a planner answers with a plan or a refusal");
        }
    }

    Answer Plan(Unfinished run, Target target)
    {
        var machine = Surveyor.Survey(kernel, ledger.Homes(), target, ledger.Wedges(), configs: false);
        var gpus = machine.Gpus.Where(g => run.Plan.Gpus.Contains(g.Address)).ToImmutableArray();
        var answer = Planner.Plan(machine, new(target, gpus), policy);
        return answer is Answer.Planned { Plan: var plan } ? new Answer.Planned(WithoutOthersDrains(plan, run)) : answer;
    }

    /// <summary>A card at home with a record may be closed to new users by the run that was killed, or by another program: the diary knows.</summary>
    static Plan WithoutOthersDrains(Plan plan, Unfinished run)
    {
        var steps = run.Plan.Steps().ToList();
        var ours = run.Begun.Select(index => steps[index]).OfType<Drain>().Where(d => d.On).Select(d => d.Function).ToHashSet();
        return plan with
        {
            Phases =
            [
                .. plan.Phases.Select(p => p with { Steps = [.. p.Steps.Where(s => s is not Drain { On: false } end || ours.Contains(end.Function))] })
                    .Where(p => p.Steps is not []),
            ],
        };
    }

    /// <summary>Closes the diary, and forgets the records of cards that are at home on drivers of the host.</summary>
    void Settle(Unfinished run, int before)
    {
        if (ledger.Unfinished().FirstOrDefault(u => u.Source == run.Source) is { } still)
            WriteDown(() => ledger.Close(still, "recovered"), before);
        foreach (var home in ledger.Homes().Where(h => run.Plan.Gpus.Contains(h.Gpu)))
        {
            if (home.Returned || !home.Functions.All(f => f.Owner.Driver != Owner.Vfio && Surveyor.OwnerOf(f.Function, kernel) == f.Owner))
                continue;
            // What the run has not stopped itself was left by an earlier one, and still is.
            if (home.Stopped.Where(s => !run.Plan.Steps().Any(step => step.Undo() is { } undo && Restarts.Starts(undo, s))).ToImmutableArray() is not [] and var left)
                WriteDown(() => ledger.Keep(Restarts.Rest(home, left)), before);
            else
                WriteDown(() => ledger.Forget(home.Gpu), before);
        }
    }
}
