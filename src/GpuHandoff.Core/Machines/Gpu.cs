using System.Collections.Immutable;

namespace GpuHandoff.Machines;

/// <summary>A display card: every function of its slot, and whatever else its IOMMU groups hold.</summary>
/// <param name="Address">Its display function.</param>
/// <param name="Functions">All functions of the slot, by address.</param>
/// <param name="Neighbours">Other functions in the same IOMMU groups, bridges left out: they do not go to a VM.</param>
public sealed record Gpu(PciAddress Address, ImmutableArray<PciFunction> Functions, ImmutableArray<PciFunction> Neighbours)
{
    /// <summary>NVIDIA's device minor: /dev/nvidiaN. Null while nvidia does not have it.</summary>
    public int? Minor { get; init; }

    public string? Uuid { get; init; }

    /// <summary>Null: it sits on a root bus.</summary>
    public Upstream? Upstream { get; init; }

    /// <summary>
    /// Kernel persistence mode: nvidia keeps the card initialised for nobody. Only asked where interrupts have no other
    /// explanation; null: not asked, or nobody could tell.
    /// </summary>
    public bool? Persistence { get; init; }

    public PciFunction Display() => Functions.First(f => f.Address == Address);

    public bool IsNvidia() => Display().Id.Vendor == PciId.Nvidia;

    public string Slot() => Address.Slot;

    public override string ToString() => Display().Name is { } name ? $"{Slot()} ({name})" : Slot();
}
