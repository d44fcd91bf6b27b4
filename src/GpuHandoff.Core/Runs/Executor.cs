using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Steps;

namespace GpuHandoff.Runs;

/// <summary>
/// Carries a plan out: look, write down, act, believe only what reads back. A step that fails undoes all; a call that
/// does not return undoes nothing, because the kernel holds that device's lock and the undo would hang behind it.
/// </summary>
/// <param name="footprint">Where its changes are noted; null: nobody asks.</param>
public sealed class Executor(IKernel kernel, ILedger ledger, IWitness witness, Limits limits, Footprint? footprint = null)
{
    readonly Footprint _footprint = footprint ?? new();
    readonly Stack<(int Index, Step Step)> _begun = new();
    readonly ImmutableArray<string>.Builder _warnings = ImmutableArray.CreateBuilder<string>();

    public Outcome Run(Plan plan, CancellationToken stop)
    {
        var before = plan.Keep is [] ? [] : ledger.Homes();
        if (Prepared(plan, before) is not { } journal)
        {
            Forget(plan);
            return new Outcome.Done(0);
        }

        using var open = journal;
        var outcome = Forward(plan, journal, stop);
        if (outcome is Outcome.Done)
            witness.WriteDown(() => Forget(plan));
        // As before means in the ledger, too.
        if (outcome is Outcome.RolledBack)
            PutBack(plan, before);
        witness.WriteDown(() => journal.Closes(outcome));
        Mark(plan, outcome);
        return outcome;
    }

    /// <summary>Undoes what a run that never ended had begun, as that run would have done itself.</summary>
    public Outcome TakeBack(Unfinished run)
    {
        var before = _footprint.Count;
        var steps = run.Plan.Steps().ToList();
        foreach (var index in run.Begun)
            _begun.Push((index, steps[index]));
        var outcome = Back("an earlier run did not end", null, journal: null);
        if (outcome is Outcome.RolledBack)
            witness.WriteDown(() => ledger.Close(run, "taken-back"), isDone: _footprint.Count > before);
        Mark(run.Plan, outcome);
        return outcome;
    }

    void Mark(Plan plan, Outcome outcome)
    {
        if (outcome is not Outcome.Stuck { Call: { } silent } stuck)
            return;
        foreach (var gpu in plan.Gpus)
        {
            witness.WriteDown(() => ledger.Mark(new(
                plan.BootId, gpu, silent.Call, silent.Since, silent.Process, [.. stuck.NotUndone.Select(s => s.Say())])));
        }
    }

    /// <summary>The records that must be there before the first step; null: the plan has none.</summary>
    /// <exception cref="LedgerRefused">They cannot be written, as on a full disk: no step was taken, and the records are as before.</exception>
    IJournal? Prepared(Plan plan, ImmutableArray<Home> before)
    {
        try
        {
            foreach (var home in plan.Keep)
                ledger.Keep(home);
            return plan.IsEmpty() ? null : ledger.Open(plan);
        }
        catch (LedgerRefused)
        {
            PutBack(plan, before);
            throw;
        }
    }

    void PutBack(Plan plan, ImmutableArray<Home> before)
    {
        foreach (var home in plan.Keep)
        {
            witness.WriteDown(() =>
            {
                if (before.FirstOrDefault(b => b.Gpu == home.Gpu) is { } kept)
                    ledger.Keep(kept);
                else
                    ledger.Forget(home.Gpu);
            });
        }
    }

    void Forget(Plan plan)
    {
        foreach (var gpu in plan.Forget)
            ledger.Forget(gpu);
        foreach (var home in plan.After)
            ledger.Keep(home);
    }

    Outcome Forward(Plan plan, IJournal journal, CancellationToken stop)
    {
        var began = kernel.Uptime;
        var (index, changes) = (0, 0);
        foreach (var phase in plan.Phases)
        {
            var phaseBegan = kernel.Uptime;
            witness.PhaseBegins(phase);
            foreach (var step in phase.Steps)
            {
                if (stop.IsCancellationRequested)
                    return Back($"interrupted before: {step.Say()}", null, journal);
                // Looked at between steps only: a call cut short for the total's sake would count as silent and be left alone.
                if (kernel.Uptime - began >= limits.Total)
                    return Back($"not done within {limits.Total.TotalSeconds:0.#} s; left was: {step.Say()}", null, journal);

                witness.StepBegins(step);
                var stepBegan = kernel.Uptime;
                try
                {
                    switch (step.Look(kernel))
                    {
                        case Position.There:
                            witness.StepEnds(step, null);
                            break;
                        case Position.Elsewhere:
                            return Back(step, "the machine has changed since the plan was made", journal);
                        default:
                            journal.Begins(index);
                            _begun.Push((index, step));
                            // What a step does where the machine resists (a ladder of resets) ends with the whole run's time.
                            var left = limits with { Total = limits.Total - (kernel.Uptime - began) };
                            if (!step.MayFail())
                            {
                                Reach(step, left);
                            }
                            else if (!Attempt(step, left))
                            {
                                _ = _begun.Pop();
                                journal.Undone(index);
                            }
                            journal.Ends(index);
                            changes++;
                            witness.StepEnds(step, kernel.Uptime - stepBegan);
                            break;
                    }
                }
                catch (Exception refused) when (refused is KernelRefused or LedgerRefused)
                {
                    return Back(step, refused.Message, journal);
                }
                catch (KernelSilent silent)
                {
                    return Silence(step, silent);
                }
                // A mistake of ours must not leave a card between two drivers.
                catch (Exception mistake)
                {
                    return Back(step, $"this is a bug of gpu-handoff: {mistake.GetType().Name}: {mistake.Message}", journal);
                }
                index++;
            }
            witness.PhaseEnds(phase, kernel.Uptime - phaseBegan);
        }
        return new Outcome.Done(changes) { Warnings = _warnings.ToImmutable() };
    }

    void Reach(Step step, Limits within)
    {
        _footprint.Add(step.Say());
        step.Run(kernel, within);
        if (step.Look(kernel) != Position.There)
            throw new KernelRefused(step.Say(), 0, "the kernel reported success, but it reads back otherwise");
    }

    /// <summary>False: another program had done it before, and it is not ours to undo.</summary>
    bool Attempt(Step step, Limits within)
    {
        _footprint.Add(step.Say());
        try
        {
            step.Run(kernel, within);
        }
        catch (KernelRefused refused)
        {
            Warn(step, refused);
        }
        catch (NothingDone left)
        {
            Warn(step, left);
            return false;
        }
        return true;
    }

    void Warn(Step step, Exception why)
    {
        var warning = $"{step.Say()}: {why.Message}";
        _warnings.Add(warning);
        witness.Warns(warning);
    }

    Outcome Back(Step step, string reason, IJournal journal)
    {
        witness.StepFails(step, reason);
        return Back($"{step.Say()}: failed", new(step, reason), journal);
    }

    /// <summary>Undoes what was begun, newest first, and goes on past an undo that fails.</summary>
    Outcome Back(string what, Failure? cause, IJournal? journal)
    {
        var failures = ImmutableArray.CreateBuilder<Failure>();
        if (cause is not null)
            failures.Add(cause);
        var left = ImmutableArray.CreateBuilder<Step>();
        while (_begun.TryPop(out var begun))
        {
            var undo = begun.Step;
            try
            {
                if (begun.Step.Undo() is not { } way)
                    continue;
                undo = way;
                witness.Undoes(undo);
                switch (undo.Look(kernel))
                {
                    case Position.There:
                        break;
                    case Position.Elsewhere:
                        // Whoever moved it since had a reason, and may be using it.
                        throw new KernelRefused(undo.Say(), 0, "somebody else has moved it since, so it was left alone");
                    default:
                        Reach(undo, limits);
                        break;
                }
                journal?.Undone(begun.Index);
            }
            catch (LedgerRefused refused)
            {
                // Undone it is; that nobody wrote it down is told with the rest.
                failures.Add(new(undo, refused.Message));
            }
            catch (KernelSilent silent)
            {
                witness.StepFails(undo, silent.Message);
                failures.Add(new(undo, silent.Message));
                left.Add(begun.Step);
                left.AddRange(Undoable());
                return new Outcome.Stuck(what, Silent: true, failures.ToImmutable(), left.ToImmutable()) { Call = silent };
            }
            catch (Exception refused)
            {
                var reason = refused is KernelRefused ? refused.Message : $"this is a bug of gpu-handoff: {refused.GetType().Name}: {refused.Message}";
                witness.StepFails(undo, reason);
                failures.Add(new(undo, reason));
                left.Add(begun.Step);
            }
        }
        return left.Count == 0
            ? new Outcome.RolledBack(what, cause)
            : new Outcome.Stuck(what, Silent: false, failures.ToImmutable(), left.ToImmutable());
    }

    Outcome.Stuck Silence(Step step, KernelSilent silent)
    {
        witness.StepFails(step, silent.Message);
        return new($"{step.Say()}: no answer from the kernel", Silent: true, [new(step, silent.Message)], [.. Undoable()]) { Call = silent };
    }

    IEnumerable<Step> Undoable() => _begun.Select(b => b.Step).Where(s => s.Undo() is not null);
}
