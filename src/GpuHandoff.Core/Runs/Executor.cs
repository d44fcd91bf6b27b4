using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Steps;

namespace GpuHandoff.Runs;

/// <summary>
/// Carries a plan out: look, write down, act, believe only what reads back. A step that fails undoes all; a call that
/// does not return undoes nothing, because the kernel holds that device's lock and the undo would hang behind it. Once only
/// steps that may fail are left, the GPU is where it shall be, and nothing that becomes of them moves it again.
/// </summary>
/// <param name="footprint">Where its changes are noted; null: the caller does not ask.</param>
public sealed class Executor(IKernel kernel, ILedger ledger, IWitness witness, Limits limits, Footprint? footprint = null)
{
    readonly AskedOnce _kernel = new(kernel, limits);
    readonly ImmutableArray<Step>.Builder _left = ImmutableArray.CreateBuilder<Step>();
    readonly Footprint _footprint = footprint ?? new();
    readonly Stack<(int Index, Step Step)> _begun = new();
    readonly ImmutableArray<string>.Builder _warnings = ImmutableArray.CreateBuilder<string>();

    /// <summary>Carries it out.</summary>
    /// <param name="began">When the run began, as time since boot: what it has waited for since counts for its limit. Null: now.</param>
    public Outcome Run(Plan plan, CancellationToken stop, TimeSpan? began = null)
    {
        var before = plan.Keep is [] ? [] : ledger.Homes();
        if (Prepared(plan, before) is not { } journal)
        {
            Forget(plan, []);
            return new Outcome.Done(0);
        }

        using var open = journal;
        var outcome = Forward(plan, journal, began ?? _kernel.Uptime, stop);
        if (outcome is Outcome.Done { Left: var left })
            witness.WriteDown(() => Forget(plan, left));
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

    void Forget(Plan plan, ImmutableArray<Step> left)
    {
        var homes = left is [] ? [] : ledger.Homes();
        ImmutableArray<Stopped> Left(PciAddress gpu) => homes.FirstOrDefault(h => h.Gpu == gpu) is { } home ? Restarts.Of(home, left) : [];

        foreach (var gpu in plan.Forget)
        {
            if (Left(gpu) is not [] and var rest)
                ledger.Keep(Restarts.Rest(homes.First(h => h.Gpu == gpu), rest));
            else
                ledger.Forget(gpu);
        }
        foreach (var home in plan.After)
            ledger.Keep(Left(home.Gpu) is not [] and var rest ? home with { Stopped = rest, Returned = true } : home);
    }

    Outcome Forward(Plan plan, IJournal journal, TimeSpan began, CancellationToken stop)
    {
        var (index, changes) = (0, 0);
        // Behind this one a failure is no reason to take the GPU back.
        var last = plan.Steps().ToList().FindLastIndex(s => !s.MayFail());
        // Behind this one no step moves a GPU: what is left (modules, nodes, power) takes seconds, and neither a signal nor the limit is a
        // reason to undo all of it.
        var moves = plan.Steps().Any(Moves) ? plan.Steps().ToList().FindLastIndex(Moves) : last;
        if (TooLate(_kernel.Uptime - began) is { } late)
            return Back(late, null, journal);
        TimeSpan? arrived = null;
        foreach (var phase in plan.Phases)
        {
            var phaseBegan = _kernel.Uptime;
            witness.PhaseBegins(phase);
            foreach (var step in phase.Steps)
            {
                if (index > last)
                {
                    arrived ??= _kernel.Uptime;
                    if (WhyNotTried(step, arrived.Value, stop) is { } why)
                        Leave(plan, index, step, why, journal);
                    else if (Finish(plan, index, step, journal, ref changes) is { } stuck)
                        return stuck;
                    index++;
                    continue;
                }
                if (stop.IsCancellationRequested && index <= moves)
                    return Back($"interrupted before: {step.Say()}", null, journal);
                // Looked at between steps only: a call cut short for the total's sake would count as silent and be left alone.
                if (_kernel.Uptime - began >= limits.Total && index <= moves)
                    return Back($"not done within {limits.Total.TotalSeconds:0.#} s; left was: {step.Say()}", null, journal);

                witness.StepBegins(step);
                var stepBegan = _kernel.Uptime;
                try
                {
                    switch (step.Look(_kernel))
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
                            var left = limits with { Total = limits.Total - (_kernel.Uptime - began) };
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
                            witness.StepEnds(step, _kernel.Uptime - stepBegan);
                            break;
                    }
                }
                catch (Exception refused) when (refused is KernelRefused or LedgerRefused)
                {
                    return Back(step, refused.Message, journal, (refused as KernelRefused)?.Hint);
                }
                catch (KernelSilent silent)
                {
                    return Silence(step, silent);
                }
                // A mistake of ours must not leave a card between two drivers.
                catch (Exception mistake)
                {
                    return Back(step, Bug(mistake), journal);
                }
                index++;
            }
            witness.PhaseEnds(phase, _kernel.Uptime - phaseBegan);
        }
        return new Outcome.Done(changes) { Warnings = _warnings.ToImmutable(), Left = _left.ToImmutable() };
    }

    static bool Moves(Step step) => step is Rebind or LetKernelPick or LoadDriver or UnloadDriver or ResizeBar;

    /// <summary>Why a run that has waited for its turn begins nothing; null: there is time enough.</summary>
    string? TooLate(TimeSpan waited)
    {
        // With the rest of the time it would stop services and unload drivers only to undo it.
        var least = limits.Total / 5 < _least ? limits.Total / 5 : _least;
        return waited > TimeSpan.Zero && limits.Total - waited < least
            ? $"its turn came after {waited.TotalSeconds:0} s, and {Math.Max(0, (limits.Total - waited).TotalSeconds):0} s are too few to begin"
            : null;
    }

    static readonly TimeSpan _least = TimeSpan.FromSeconds(30);

    /// <summary>Why a step behind the GPU's arrival is left out; null: it is not. The console, which takes no time, never is.</summary>
    string? WhyNotTried(Step step, TimeSpan arrived, CancellationToken stop) =>
        !Restarts.IsOne(step) ? null
        : stop.IsCancellationRequested ? "the run was interrupted"
        : _kernel.Uptime - arrived >= limits.Restart ? $"what was stopped was not all started within {limits.Restart.TotalSeconds:0.#} s"
        : null;

    /// <summary>A step behind the GPU's arrival: what goes wrong with it is a warning, whatever it is.</summary>
    /// <returns>How the run ends, where the kernel does not come back from a call; null: it goes on.</returns>
    Outcome.Stuck? Finish(Plan plan, int index, Step step, IJournal journal, ref int changes)
    {
        witness.StepBegins(step);
        var began = _kernel.Uptime;
        try
        {
            switch (step.Look(_kernel))
            {
                case Position.There:
                    witness.StepEnds(step, null);
                    return null;
                case Position.Elsewhere:
                    Warn($"{step.Say()}: the machine has changed since the plan was made");
                    return null;
                default:
                    // A disk that is full by now is told, and keeps no service down.
                    witness.WriteDown(() => journal.Begins(index));
                    _begun.Push((index, step));
                    _footprint.Add(step.Say());
                    step.Run(_kernel, limits);
                    break;
            }
        }
        catch (KernelSilent silent)
        {
            return Silence(step, silent);
        }
        // Whether it was started is not known, or it was not asked for. Where its manager says no, that is an answer.
        catch (KernelRefused refused) when (refused is ProgramSilent or HelperSilent && Restarts.IsOne(step))
        {
            Leave(plan, index, step, refused.Message, journal);
            return null;
        }
        catch (Exception refused) when (refused is KernelRefused or NothingDone)
        {
            Warn($"{step.Say()}: {refused.Message}");
        }
        catch (Exception mistake)
        {
            Warn($"{step.Say()}: {Bug(mistake)}");
        }
        witness.WriteDown(() => journal.Ends(index));
        changes++;
        witness.StepEnds(step, _kernel.Uptime - began);
        return null;
    }

    /// <summary>Left for a later run, which finds it in the GPU's record.</summary>
    void Leave(Plan plan, int index, Step step, string why, IJournal journal)
    {
        _left.Add(step);
        witness.WriteDown(() => journal.Left(index));
        var isKept = false;
        witness.WriteDown(() => isKept = ledger.Homes().Any(h => plan.Gpus.Contains(h.Gpu) && Restarts.Of(h, [step]) is not []));
        Warn($"{step.Say()}: not done, {why}; by hand: {Restarts.ByHand(step)}"
            + (isKept ? $"; {(plan.Target == Target.Host ? "the next to_nvidia" : "the GPU's return")} does it, too" : ""));
    }

    void Warn(string warning)
    {
        _warnings.Add(warning);
        witness.Warns(warning);
    }

    static string Bug(Exception mistake) => $"this is a bug of gpu-handoff: {mistake.GetType().Name}: {mistake.Message}";

    void Reach(Step step, Limits within)
    {
        _footprint.Add(step.Say());
        step.Run(_kernel, within);
        if (step.Look(_kernel) != Position.There)
            throw new KernelRefused(step.Say(), 0, "the kernel reported success, but it reads back otherwise");
    }

    /// <summary>False: another program had done it before, and it is not ours to undo.</summary>
    bool Attempt(Step step, Limits within)
    {
        _footprint.Add(step.Say());
        try
        {
            step.Run(_kernel, within);
        }
        // Before the GPU is where it shall be, a program of ours that hangs in the kernel may have it open there.
        catch (KernelRefused refused) when (refused is not ProgramSilent { IsOver: false })
        {
            Warn($"{step.Say()}: {refused.Message}");
        }
        catch (NothingDone left)
        {
            Warn($"{step.Say()}: {left.Message}");
            return false;
        }
        return true;
    }

    Outcome Back(Step step, string reason, IJournal journal, string? hint = null)
    {
        witness.StepFails(step, reason);
        return Back($"{step.Say()}: failed", new(step, reason) { Hint = hint }, journal);
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
                switch (undo.Look(_kernel))
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
                var reason = refused is KernelRefused ? refused.Message : Bug(refused);
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
