using System.Collections.Immutable;
using GpuHandoff.Machines;

namespace GpuHandoff.Goals;

/// <summary>How a card is taken from NVIDIA's driver.</summary>
public enum FreeBy
{
    /// <summary>Unload where no other GPU needs the driver, unbind where one does.</summary>
    Auto,

    /// <summary>Take the whole stack of modules down: a busy one refuses at once, harmlessly.</summary>
    Unload,

    /// <summary>Unbind this card alone: the modules and the other cards stay.</summary>
    Unbind,
}

/// <summary>How long one call may take before it counts as silent.</summary>
/// <param name="Write">A sysfs write: an override, an unbind, a bind.</param>
/// <param name="Module">Loading or unloading one module; loading runs the probe of every card.</param>
/// <param name="Total">The steps together, from the first to the last. Undoing is not cut short: each call has its own limit.</param>
public sealed record Limits(TimeSpan Write, TimeSpan Module, TimeSpan Total)
{
    /// <summary>A write may wait for a VM that is just letting go: the kernel polls a reset for 60 s (pci.c:pci_dev_wait).</summary>
    public static Limits Default { get; } = new(TimeSpan.FromSeconds(75), TimeSpan.FromSeconds(75), TimeSpan.FromSeconds(300));
}

/// <summary>How the wanted is to be reached.</summary>
public sealed record Policy
{
    public static Policy Default { get; } = new();

    public FreeBy By { get; init; } = FreeBy.Auto;

    /// <summary>Strangers in the GPU's IOMMU group that may go to the VM with it.</summary>
    public ImmutableArray<PciAddress> Accepted { get; init; } = [];

    /// <summary>Take to the host's driver what was on vfio-pci before we came.</summary>
    public bool Claim { get; init; }

    /// <summary>How long a return waits for a VM that still has the card. Nothing is begun before it has let go.</summary>
    public TimeSpan Patience { get; init; } = TimeSpan.FromSeconds(30);

    public Limits Limits { get; init; } = Limits.Default;
}
