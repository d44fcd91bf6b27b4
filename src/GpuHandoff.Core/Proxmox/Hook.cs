using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Survey;

namespace GpuHandoff.Proxmox;

/// <summary>Runs the errands of Proxmox's hook. What it cannot do in any phase but pre-start is a warning: nothing hangs on it.</summary>
public sealed class Hook(IKernel kernel, ILedger ledger, Turn turn, IWitness witness)
{
    readonly ProxmoxNode _node = new(kernel) { Patience = null };

    /// <summary>Does what the call asks for. A start that was found to be impossible is among the endings, too.</summary>
    public ImmutableArray<Ending> Carry(HookErrand errand, PolicySet said, CancellationToken stop)
    {
        switch (errand)
        {
            case HookErrand.None:
                return [];
            case HookErrand.Refused { Why: var why }:
                return [new Ending.Refused(why)];
            case HookErrand.HandOver start:
                return HandOver(start, said, stop);
            case HookErrand.HandBack end:
                return HandBack(end, said, stop);
            case HookErrand.Note running:
                Note(running, said, stop);
                return [];
            default:
                throw new ArgumentOutOfRangeException(nameof(errand));
        }
    }

    /// <summary>
    /// The cards to the VM. What was refused or failed is among the endings, and everything is as before then.
    /// </summary>
    public ImmutableArray<Ending> HandOver(HookErrand.HandOver errand, PolicySet said, CancellationToken stop)
    {
        foreach (var note in errand.Notes)
            witness.Tells(note);
        if (Asked(errand, said) is not { } policy)
            return [new Ending.Refused(NotForBackups(errand))];
        if (errand.Left is not [])
        {
            witness.Tells($"{errand.Guest} no longer has {string.Join(", ", errand.Left.Select(l => l.Gpu.Slot))}, which is still lent to it");
            // The start does not hang on it, and whoever looks for lent cards later finds it again.
            foreach (var why in turn.TakeBack(errand.Left, said, stop).Select(Trouble).OfType<string>())
                witness.Warns(why);
        }
        if (errand.Gpus is [])
            return [];
        switch (turn.Lend(errand.Guest, errand.Gpus, policy, stop, errand.IsForBackup))
        {
            // VMs of one mapping that start at the same time all see the same device free: who comes second looks again.
            case Ending.Refused { Why: var why } when errand.Choice is { } call && why.Findings.All(f => f.Code == GpuIsLent.Check.Code):
                return HookErrand.Of(call, kernel, ledger) switch
                {
                    HookErrand.HandOver other when !other.Gpus.SequenceEqual(errand.Gpus) => HandOver(other with { Notes = [], Left = [] }, said, stop),
                    HookErrand.Refused { Why: var none } => [new Ending.Refused(none)],
                    _ => [new Ending.Refused(why)],
                };
            case Ending.Refused { Why: var why } when errand.IsForBackup:
                return [new Ending.Refused(ForBackup(errand, why))];
            case var ending:
                return [ending];
        }
    }

    /// <summary>The cards that an errand moves.</summary>
    public static ImmutableArray<PciAddress> Gpus(HookErrand errand) => errand switch
    {
        HookErrand.HandOver start => start.Gpus,
        HookErrand.HandBack end => [.. end.Leases.Select(l => l.Gpu)],
        _ => [],
    };

    /// <summary>The plan that would be carried out, or why there is none.</summary>
    public static Answer Plan(HookErrand errand, PolicySet said, Machine machine)
    {
        var cards = Gpus(errand);
        ImmutableArray<Gpu> gpus = [.. machine.Gpus.Where(g => cards.Contains(g.Address))];
        if (errand is not HookErrand.HandOver asked)
            return Planner.Plan(machine, new(Target.Host, gpus), said);
        if (Asked(asked, said) is not { } policy)
            return NotForBackups(asked);
        return Planner.Plan(machine, new(Target.Vfio, gpus) { For = asked.Guest }, policy) switch
        {
            Answer.Refused refused when asked.IsForBackup => ForBackup(asked, refused),
            var answer => answer,
        };
    }

    /// <summary>The truth: which of the mapped devices Proxmox has taken, and as which process the VM runs.</summary>
    public void Note(HookErrand.Note errand, PolicySet said, CancellationToken stop)
    {
        var vm = int.Parse(errand.Guest.Id);
        var reserved = Reserved(vm);
        var qemu = RunningVm.Of(vm, kernel);
        var leases = errand.Leases;
        if (reserved.Count > 0)
            leases = Chosen(errand.Guest, vm, leases, reserved, said, stop);
        var pinned = Pin(vm, qemu, said.OfVm(errand.Guest.Id).Everywhere().Pin);
        foreach (var lease in leases)
        {
            if (turn.Amend(lease, l => l with { Qemu = qemu ?? l.Qemu, Pinned = pinned }, stop) is { } why)
                witness.Warns($"what {errand.Guest} runs as is not written down with {lease.Gpu.Slot}: {why}");
        }
    }

    List<Reservation> Reserved(int vm)
    {
        try
        {
            return [.. _node.Reserved().Where(r => r.Vm == vm)];
        }
        catch (NotProxmox trouble)
        {
            witness.Warns($"which of its devices Proxmox has chosen is not known: {trouble.Message}");
            return [];
        }
    }

    ImmutableArray<string> Pin(int vm, QemuProcess? qemu, Pinning wanted)
    {
        if (wanted.IsNone())
            return [];
        try
        {
            var pinned = new Pinner(kernel).Run(vm, qemu ?? throw new NotPinned("its QEMU is not to be found"), wanted);
            witness.Tells($"pinned: {string.Join(", ", pinned)}");
            return pinned;
        }
        catch (NotPinned not)
        {
            witness.Warns($"no thread is pinned: {not.Message}");
            return [];
        }
    }

    /// <summary>What was lent comes home, whatever the configuration says by now.</summary>
    public ImmutableArray<Ending> HandBack(HookErrand.HandBack errand, PolicySet said, CancellationToken stop)
    {
        var cards = string.Join(", ", errand.Leases.Select(l => l.Gpu.Slot));
        var policy = said.OfVm(errand.Guest.Id);
        if (errand.WhyKept(said) is { } why)
        {
            var time = errand.ComesBack == ComesBack.AfterBackup ? Tenants.BackupTakes : Tenants.RebootTakes;
            witness.Tells($"{errand.Guest} comes back ({why}): {cards} stays on {Owner.Vfio} for it, for {time.TotalMinutes:0} minutes at most");
            foreach (var lease in errand.Leases)
            {
                // Asked a second time it gets no more time.
                if (turn.Amend(lease, l => l with { ExpectedBack = l.ExpectedBack ?? new(why, kernel.Uptime + time) }, stop) is { } not)
                    witness.Warns($"that {errand.Guest} comes back is not written down, and {lease.Gpu} may come home before: {not}");
            }
            return [];
        }
        return turn.TakeBack(errand.Leases, policy, stop);
    }

    /// <summary>What the policy says for this start; null: it refuses.</summary>
    static PolicySet? Asked(HookErrand.HandOver errand, PolicySet said)
    {
        var policy = said.OfVm(errand.Guest.Id);
        if (errand.Neighbours is not [])
        {
            // The VM's owner has said so in its configuration.
            policy = policy.Over("accept-neighbours", $"{string.Join(", ", errand.Neighbours.Select(n => n.Key).Distinct())} of {errand.Guest}",
                p => p with { Accepted = [.. p.Accepted.Union(errand.Neighbours.Select(n => n.Function))] });
        }
        if (!errand.IsForBackup || errand.Gpus is [])
            return policy;
        var everywhere = policy.Everywhere();
        return everywhere.AtBackup switch
        {
            AtBackup.Refuse => null,
            // Nobody steps aside for a VM that runs for its disks alone. NVIDIA's daemons have no work of their own to lose.
            AtBackup.Free => policy.Over("users", "backup: free", p => p with { Users = UsersPolicy.Nobody(p.Users.Nvidia), LoseConsole = false, SpareConsole = true }),
            _ when everywhere.BackupContainers => policy,
            _ => policy.Over("users.containers", "backup-containers: false", p => p with { Users = p.Users.SparingContainers() }),
        };
    }

    static Answer.Refused NotForBackups(HookErrand.HandOver errand)
    {
        var what = $"{errand.Guest} is started for its backup, and the policy hands no GPU over for that";
        return new(what, [new("backup", what, ["backup: refuse"], "back it up while it runs (mode snapshot), or set backup: free in /etc/gpu-handoff.yaml")]);
    }

    static Answer.Refused ForBackup(HookErrand.HandOver errand, Answer.Refused why) => new(
        $"{errand.Guest} is started for its backup, and {why.What}",
        [
            .. why.Findings,
            new("backup", "for a backup nobody is made to step aside", ["the policy has backup: free, or backup-containers: false"],
                "back it up while it runs (mode snapshot), at another time, or set backup: always in /etc/gpu-handoff.yaml"),
        ]);

    /// <summary>Leases as Proxmox has really chosen; a card that was taken for the VM in vain goes back.</summary>
    ImmutableArray<Lease> Chosen(
        Guest guest, int vm, ImmutableArray<Lease> leases, List<Reservation> reserved, PolicySet said, CancellationToken stop)
    {
        var arguments = InArguments(vm);
        bool IsIn(PciAddress function) => reserved.Exists(r => r.Id.Has(function)) || arguments.Contains(function);
        // A card that goes because of its group is nowhere in there, and the VM's QEMU has that group all the same.
        var mine = leases.Where(l => l.Functions.Any(f => IsIn(f.Function) || Allotment.GroupMembers(f.Function, kernel).Any(IsIn))).ToList();
        var vain = new Queue<Lease>(leases.Except(mine));
        foreach (var gpu in Surveyor.Cards(kernel).Gpus.Where(g => g.Functions.Any(f => IsIn(f.Address) && !kernel.Exists(Sys.Function(f.Address) / "physfn"))))
        {
            if (mine.Exists(l => l.Gpu == gpu.Address))
                continue;
            if (Swapped(guest, gpu.Address, vain, stop) is { } now)
            {
                mine.Add(now);
                continue;
            }
            witness.Warns($"Proxmox has chosen {gpu.Address} for {guest}, which was not handed over by gpu-handoff: it does not come back by itself; "
                + $"after the VM has stopped: gpu-handoff to_nvidia --gpu {gpu.Address} --claim");
        }
        var claims = new Claims(_node, kernel);
        foreach (var lease in vain)
        {
            if (lease.Functions.Select(f => claims.Of(f.Function, vm)).OfType<string>().FirstOrDefault() is { } other)
            {
                witness.Warns($"{lease.Gpu} was taken for {guest}, but {other}");
                continue;
            }
            witness.Tells($"{lease.Gpu} was taken for {guest}, and Proxmox has chosen another: it goes back");
            foreach (var why in turn.TakeBack([lease], said, stop).Select(Trouble).OfType<string>())
                witness.Warns(why);
        }
        return [.. mine];
    }

    /// <summary>
    /// Two VMs of one mapping that started at the same time may have got each other's: then what was taken in vain for this
    /// one is what Proxmox chooses for that one, or has chosen. Null: nobody was lent it.
    /// </summary>
    Lease? Swapped(Guest guest, PciAddress gpu, Queue<Lease> vain, CancellationToken stop)
    {
        if (LeaseOf(gpu) is not { } others || turn.Amend(others, l => l with { Guest = guest, Since = kernel.Uptime, Qemu = null, Pinned = [] }, stop) is not null)
            return null;
        witness.Tells($"Proxmox has chosen {gpu} for {guest}, which was taken for {others.Guest}");
        if (vain.TryDequeue(out var left))
        {
            if (turn.Amend(left, l => l with { Guest = others.Guest, Since = kernel.Uptime, Qemu = others.Qemu, Pinned = others.Pinned }, stop) is { } why)
                witness.Warns($"{left.Gpu} was taken for {guest}, and that {others.Guest} has it is not written down: {why}");
            Watched(LeaseOf(left.Gpu));
        }
        var now = LeaseOf(gpu);
        Watched(now);
        return now;
    }

    /// <summary>Whoever watched over it has seen it go to another VM, and ends.</summary>
    void Watched(Lease? lease)
    {
        if (lease is not null)
            witness.Lends([lease]);
    }

    Lease? LeaseOf(PciAddress gpu) => ledger.Leases().FirstOrDefault(l => l.Gpu == gpu);

    ImmutableArray<PciAddress> InArguments(int vm)
    {
        try
        {
            return [.. Allotment.InArguments(_node.Config(vm)?.Arguments ?? "")];
        }
        catch (Exception e) when (e is NotProxmox or KernelRefused)
        {
            return [];
        }
    }

    static string? Trouble(Ending ending) => ending switch
    {
        Ending.Refused { Why: var why } => $"{why.What}: {string.Join("; ", why.Findings.SelectMany(f => f.Evidence.Prepend(f.What)).Distinct())}",
        Ending.Unanswered { Call: var call } => call.Message,
        Ending.Ran { Outcome: Outcome.RolledBack back } => $"{back.What}: {back.Cause?.Reason}",
        Ending.Ran { Outcome: Outcome.Stuck stuck } => $"{stuck.What}: {string.Join("; ", stuck.Failures.Select(f => f.Reason))}",
        _ => null,
    };
}
