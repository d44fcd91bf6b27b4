using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Machines;

namespace GpuHandoff.Runs;

/// <summary>What is wanted of known cards.</summary>
sealed record Errand(Target Target, ImmutableArray<PciAddress> Gpus)
{
    public Guest? For { get; init; }

    /// <summary>Asked with the locks in hand: whether it is wanted still.</summary>
    public Func<Machine, bool> Still { get; init; } = _ => true;

    public bool ForBackup { get; init; }

    /// <summary>The loan of which the VM's manager says that it has ended; null: it says nothing.</summary>
    public Lease? Ends { get; init; }

    /// <summary>For locks, and for a VM to let go.</summary>
    public bool Waits { get; init; } = true;

    /// <summary>Nobody asked for these very cards: what hinders it is written down, and told once.</summary>
    public bool IsUnasked { get; init; }

    public bool IsForAStart() => Target == Target.Vfio && For is not null;
}
