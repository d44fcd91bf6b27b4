using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Runs;

/// <summary>What runs left that did not end themselves, and what an earlier boot did.</summary>
sealed class Leftovers(IKernel kernel, ILedger ledger, ILocks locks, IWitness witness, Marks marks, Footprint footprint)
{
    /// <summary>Ends every run of this boot that did not end itself, and drops what is left of earlier boots.</summary>
    /// <param name="wait">
    /// Wait for a run that is at work, and try once more what an earlier recovery could not end; else leave both alone.
    /// </param>
    public ImmutableArray<Ending> Recover(PolicySet policy, bool wait, CancellationToken stop)
    {
        var endings = ImmutableArray.CreateBuilder<Ending>();
        var recovery = new Recovery(kernel, ledger, witness, policy, footprint);
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
                endings.Add(marks.Unanswered(silent));
            }
            catch (Exception trouble) when (trouble is LedgerRefused or KernelRefused)
            {
                if (wait || ledger.IsNews(run.Plan.Gpus[0], trouble.Message))
                    endings.Add(Ending.Refused.Of(trouble));
            }
        }
        DropOtherBoots(stop);
        return endings.ToImmutable();
    }

    Ending? EndOne(Unfinished run, Recovery recovery, PolicySet policy, bool wait, CancellationToken stop)
    {
        if (marks.Wedged(run.Plan.Gpus, run.Plan.Target) is { } stuck)
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

    public void EndWhatDidNotEnd(ImmutableArray<PciAddress> gpus, Holding turn, PolicySet policy)
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
            new Recovery(kernel, ledger, witness, policy, footprint).Recover(run);
        }
    }

    /// <summary>Runs of this boot that did not end and have to do with these cards. A wedged card is left alone.</summary>
    public ImmutableArray<Unfinished> Touching(ImmutableArray<PciAddress> gpus)
    {
        var boot = Surveyor.BootId(kernel);
        var wedged = ledger.Wedges().Where(w => w.BootId == boot).Select(w => w.Gpu).ToHashSet();
        return
        [
            .. ledger.Unfinished()
                .Where(u => u.Plan.BootId == boot && u.Plan.Gpus.Any(gpus.Contains) && !u.Plan.Gpus.Any(wedged.Contains)),
        ];
    }

    /// <summary>Another boot has bound everything anew: its records and marks tell nothing of this one.</summary>
    public void DropOtherBoots(CancellationToken stop)
    {
        var boot = Surveyor.BootId(kernel);
        foreach (var gpu in ledger.Wedges().Where(w => w.BootId != boot).Select(w => w.Gpu)
            .Concat(ledger.Homes().Where(h => h.BootId != boot).Select(h => h.Gpu))
            .Concat(ledger.Leases().Where(l => l.BootId != boot).Select(l => l.Gpu))
            .Concat(ledger.Damaged().Where(d => d.IsOfEarlierBoot).Select(d => d.Gpu).OfType<PciAddress>()).Distinct().ToList())
        {
            try
            {
                DropOtherBoots(gpu, boot, stop);
            }
            catch (LedgerRefused refused)
            {
                // They hinder nothing, and the next look finds them again.
                if (ledger.IsNews(gpu, refused.Message))
                    witness.Warns($"{refused.Message}; {refused.Hint}");
            }
        }
    }

    void DropOtherBoots(PciAddress gpu, string boot, CancellationToken stop)
    {
        // A run that begins now may put its own record there at this moment.
        using var turn = new Holding(kernel, locks, witness, TimeSpan.Zero, stop);
        turn.Take([gpu]);
        if (turn.Refusal is not null)
            return;
        if (ledger.Wedges().Any(w => w.Gpu == gpu && w.BootId != boot))
            ledger.Unmark(gpu);
        if (ledger.Homes().Any(h => h.Gpu == gpu && h.BootId != boot))
            ledger.Forget(gpu);
        if (ledger.Leases().Any(l => l.Gpu == gpu && l.BootId != boot))
            ledger.EndLease(gpu);
        if (ledger.Damaged().FirstOrDefault(d => d.Gpu == gpu && d.IsOfEarlierBoot) is { } damaged)
        {
            ledger.EndLease(gpu);
            witness.Warns($"{damaged}: it is removed");
        }
    }
}
