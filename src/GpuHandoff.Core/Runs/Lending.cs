using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Libvirt;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Survey;

namespace GpuHandoff.Runs;

/// <summary>The leases of a run: on disk before its first step, and gone after its last one home.</summary>
sealed class Lending(IKernel kernel, ILedger ledger, IWitness witness, Footprint footprint)
{
    /// <summary>The plan, with the leases written down before its first step and gone after its last one home.</summary>
    public Outcome Run(Plan plan, Goal goal, Machine machine, Errand errand, PolicySet policy, TimeSpan began, CancellationToken stop)
    {
        var before = goal.Gpus.Select(g => (Gpu: g.Address, Lease: LeaseOf(g.Address))).ToList();
        Outcome outcome;
        if (goal is { Target: Target.Vfio, For: { } guest })
        {
            // Asked again while its VM runs (a second start, which Proxmox refuses only behind us), a lease stays whole: its process, its
            // pins, its age, and the watch that it has.
            var leases = goal.Gpus.Where(g => !IsRunning(guest, g, machine)).Select(g => LeaseFor(guest, g, plan, machine) with
            {
                // One that has the card already was on before its backup began, and is on again after it.
                ForBackup = errand.ForBackup && !before.Exists(b => b.Gpu == g.Address && b.Lease is { ForBackup: false } old
                    && old.Guest == guest && old.BootId == machine.BootId),
            }).ToImmutableArray();
            try
            {
                foreach (var lease in leases)
                    ledger.Lend(lease);
                if (leases is not [])
                    witness.Lends(leases);
                outcome = new Executor(kernel, ledger, witness, policy.Limits(), footprint).Run(plan, stop, began);
            }
            // Of the executor's, too: no step was taken, and so nothing is lent.
            catch (LedgerRefused)
            {
                PutBack(before);
                throw;
            }
        }
        else
        {
            outcome = new Executor(kernel, ledger, witness, policy.Limits(), footprint).Run(plan, stop, began);
        }
        switch (outcome)
        {
            case Outcome.Done when goal.Target == Target.Host:
                foreach (var (gpu, _) in before.Where(b => b.Lease is not null))
                    witness.WriteDown(() => ledger.EndLease(gpu));
                break;
            // A person has it now: what a VM that is gone has left is nobody's wish any more.
            case Outcome.Done when goal is { Target: Target.Vfio, For: null }:
                foreach (var (gpu, _) in before.Where(b => b.Lease is not null && machine.Loans.Any(l => l.Lease.IsSameAs(b.Lease) && l.Tenancy == Tenancy.Gone)))
                    witness.WriteDown(() => ledger.EndLease(gpu));
                break;
            case Outcome.Done when goal is { Target: Target.Vfio, For: { } tenant }:
                foreach (var lease in goal.Gpus.Where(g => !IsRunning(tenant, g, machine)).Select(g => LeaseOf(g.Address)).OfType<Lease>().Where(l => l.Guest == tenant))
                    witness.WriteDown(() => ledger.Lend(lease with { Ready = kernel.Uptime }));
                break;
            // As before means here, too.
            case Outcome.RolledBack when goal is { Target: Target.Vfio, For: not null }:
                PutBack(before);
                break;
            case Outcome.RolledBack or Outcome.Stuck when errand is { IsUnasked: true, Waits: false } && !stop.IsCancellationRequested:
                foreach (var lease in before.Select(b => b.Lease).OfType<Lease>())
                    witness.WriteDown(() => ledger.Lend(lease with { Failures = lease.Failures + 1, Trouble = (outcome as Outcome.RolledBack)?.What ?? (outcome as Outcome.Stuck)?.What }));
                break;
        }
        return outcome;
    }

    /// <summary>
    /// Its manager is at work on it, and it has not run yet. libvirt shows no more than the age of the loan, which is the same
    /// for a start that has just failed: there only a hand-over that is at work tells.
    /// </summary>
    public static bool IsStarting(Loan loan) => loan is { Tenancy: Tenancy.InMotion, Lease.Qemu: null }
        && (loan.Lease.Guest.Manager == VmManager.Proxmox || loan.Lease.Ready is null);

    /// <summary>
    /// The refusal for a VM's start while another VM that will have the card is being started: who came second is told so at
    /// once, and not when that one runs. Null: nobody starts with it.
    /// </summary>
    public Answer.Refused? OnItsWay(PciAddress gpu, Errand errand)
    {
        if (!errand.IsForAStart() || LeaseOf(gpu) is not { } lease || lease.Guest == errand.For || lease.BootId != Surveyor.BootId(kernel)
            || Tenants.Glance(lease, kernel) is not { } loan || !IsStarting(loan))
        {
            return null;
        }
        var machine = Surveyor.Cards(kernel) with { Loans = [loan] };
        return Planner.Plan(machine, new(errand.Target, [.. machine.Gpus.Where(g => errand.Gpus.Contains(g.Address))]) { For = errand.For }, Policy.Default) as Answer.Refused;
    }

    /// <summary>
    /// Its manager has said that the VM has ended: should the way home fail, the manager's process that lives on is no sign of a
    /// start any more.
    /// </summary>
    public void NoteEnd(Lease ended)
    {
        if (LeaseOf(ended.Gpu) is { StartedBy: not null } lease && lease.IsSameAs(ended))
            witness.WriteDown(() => ledger.Lend(lease with { StartedBy = null }));
    }

    /// <summary>QEMU's process, where nobody has written it down yet: by this it is known also when it has lost its name.</summary>
    public void NoteWhoRuns(Machine machine, ImmutableArray<PciAddress> gpus)
    {
        foreach (var loan in machine.Loans.Where(l => gpus.Contains(l.Lease.Gpu)))
        {
            if (LeaseOf(loan.Lease.Gpu) is { } lease && lease.IsSameAs(loan.Lease) && lease.Qemu != loan.Lease.Qemu)
                witness.WriteDown(() => ledger.Lend(loan.Lease));
        }
    }

    /// <summary>The refusal for cards that are no longer there; null: they are. A plan without them would be empty, and look done.</summary>
    public Answer.Refused? Left(Guest guest, ImmutableArray<PciAddress> gpus, Machine machine)
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
    public void TellWhatLeft(Lease? lease, Machine machine)
    {
        foreach (var function in (lease?.Functions ?? []).Select(f => f.Function).Where(f => machine.Functions().All(there => there.Address != f)))
            witness.Warns($"{function}, which was lent to {lease!.Guest}, is no longer on the PCI bus; echo 1 > /sys/bus/pci/rescan looks for it");
    }

    /// <summary>A refusal for whoever asked. Where nobody did it is told when it is news, and written down.</summary>
    public Ending.Refused? Told(Errand errand, Answer.Refused refused)
    {
        if (errand is not { IsUnasked: true, Waits: false })
            return new Ending.Refused(refused);
        // Somebody came in between: the next look sees who has it.
        if (refused.Findings.All(f => f.Code == VmHasTheGpu.Check.Code || f.Code == GpuIsLent.Check.Code))
            return null;
        var isNews = false;
        foreach (var lease in errand.Gpus.Select(LeaseOf).OfType<Lease>().Where(l => l.Trouble != refused.What))
        {
            // Nothing that is tried again helps a card that is lost: as if it had been tried in vain.
            var failures = ExitCode.IsLost(refused) ? Lease.MostTries : lease.Failures;
            witness.WriteDown(() => ledger.Lend(lease with { Trouble = refused.What, Failures = failures }));
            isNews = true;
        }
        return isNews ? new Ending.Refused(refused) : null;
    }

    public Lease? LeaseOf(PciAddress gpu) => ledger.Leases().FirstOrDefault(l => l.Gpu == gpu);

    bool IsRunning(Guest guest, Gpu gpu, Machine machine) => machine.LoanOf(gpu) is { Tenancy: Tenancy.Running, Lease: { Ready: not null } lease }
        && lease.Guest == guest && lease.BootId == machine.BootId && lease.IsSameAs(LeaseOf(gpu.Address));

    Lease LeaseFor(Guest guest, Gpu gpu, Plan plan, Machine machine) => new(
        machine.BootId, gpu.Address, guest,
        (plan.Keep.FirstOrDefault(h => h.Gpu == gpu.Address) ?? machine.HomeOf(gpu))?.Functions
            ?? [.. gpu.Functions.Where(f => !f.Class.IsBridge()).Select(f => new FunctionHome(f.Address, f.Owner))],
        kernel.Uptime)
    {
        // Proxmox has a lock for it.
        StartedBy = guest.Manager == VmManager.Libvirt ? LibvirtDaemon.Calling(kernel) : null,
    };

    void PutBack(List<(PciAddress Gpu, Lease? Lease)> before)
    {
        foreach (var (gpu, lease) in before)
        {
            witness.WriteDown(() =>
            {
                if (lease is null)
                    ledger.EndLease(gpu);
                else
                    ledger.Lend(lease);
            });
        }
    }
}
