using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Survey;

namespace GpuHandoff.Runs;

/// <summary>What is known of cards before anything is tried: calls that never came back, and records that cannot be read.</summary>
sealed class Marks(IKernel kernel, ILedger ledger, IWitness witness)
{
    static readonly TimeSpan _aLook = TimeSpan.FromSeconds(5);

    bool _hasToldOfDamage;

    /// <summary>The refusal for cards of which one is marked as stuck; null: none is.</summary>
    public Answer.Refused? Wedged(ImmutableArray<PciAddress> gpus, Target target)
    {
        var boot = Surveyor.BootId(kernel);
        if (!ledger.Wedges().Any(w => w.BootId == boot && gpus.Any(g => g.SharesSlotWith(w.Gpu))))
            return null;
        var machine = Surveyor.Cards(kernel) with { Wedges = [.. ledger.Wedges().Where(w => w.BootId == boot)] };
        return Planner.Plan(machine, new(target, [.. machine.Gpus.Where(g => gpus.Contains(g.Address))]), Policy.Default) as Answer.Refused;
    }

    /// <summary>
    /// A look that hangs, and hangs when it is made once more, means a device whose lock another's call has: marked, so that no
    /// later look hangs there, too.
    /// </summary>
    public Ending.Unanswered Unanswered(KernelSilent silent)
    {
        foreach (var gpu in Surveyor.Cards(kernel).Gpus.Where(g => g.Functions.Any(f => silent.Call.Contains(f.Address.ToString(), StringComparison.Ordinal))))
        {
            witness.WriteDown(() => ledger.Mark(new(Surveyor.BootId(kernel), gpu.Address, silent.Call, silent.Since, silent.Process, [])));
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
            if (WhyStuck(wedge) is { } evidence)
            {
                var what = $"{wedge.Gpu} is still stuck";
                endings.Add(new Ending.Refused(new(what, [new(
                    GpuIsWedged.Check.Code, what, [evidence], "reboot the host: the kernel cannot be made to let go")])));
                continue;
            }
            ledger.Unmark(wedge.Gpu);
            witness.Warns($"{wedge.Gpu} no longer counts as stuck: the call has come back ({wedge.Call})");
        }
        return endings.ToImmutable();
    }

    /// <summary>What shows that the call has not come back; null: it has.</summary>
    string? WhyStuck(Wedge wedge)
    {
        if (wedge.Process is { } process)
            return ProcessStat.Lives(process.Pid, process.Started, kernel) ? $"process {process.Pid} is still in: {wedge.Call}" : null;
        // A mark of an earlier version without a process: only of a program that would not end was none written down, and a
        // program says nothing of the GPU. Shown by looks that wait for the GPU's lock where a call still has it: the override
        // before kernel 6.12.94 (drivers/base/driver.c:driver_set_override), nvidia's own file with any.
        try
        {
            _ = kernel.ReadSlow(Sys.Function(wedge.Gpu) / "driver_override", _aLook);
            _ = kernel.ReadSlow(Sys.Proc / $"driver/nvidia/gpus/{wedge.Gpu}/information", _aLook);
            return null;
        }
        catch (KernelSilent silent)
        {
            // From now on the mark names one.
            witness.WriteDown(() => ledger.Mark(wedge with { Process = silent.Process }));
            return $"{silent.Message} ({silent.Process}); it was marked for: {wedge.Call}";
        }
        catch (KernelRefused refused)
        {
            return $"it cannot be looked at: {refused.Message}; it was marked for: {wedge.Call}";
        }
    }

    /// <summary>The refusal for cards of which one has a record that cannot be read: a VM may have it.</summary>
    public Answer.Refused? Damaged(ImmutableArray<PciAddress> gpus) => ledger.Damaged().FirstOrDefault(d => gpus.Any(d.Concerns)) is { } damaged
        ? new(damaged.What, [new("ledger", damaged.What, [], damaged.Hint)])
        : null;

    /// <summary>Once a run. The timer would fill the log with it, so that for it once a boot is enough.</summary>
    public void TellOfDamage(bool waits)
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
                witness.WriteDown(() => ledger.Know(damaged));
        }
    }
}
