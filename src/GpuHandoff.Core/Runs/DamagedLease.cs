using GpuHandoff.Machines;

namespace GpuHandoff.Runs;

/// <summary>A record of a lease that cannot be read: whom its card is lent to, and since when, nobody can tell.</summary>
/// <param name="Gpu">By the record's name; null: that tells none, either.</param>
/// <param name="What">The file, the place in it, and the reason.</param>
/// <param name="Hint">The way out.</param>
public sealed record DamagedLease(PciAddress? Gpu, string What, string Hint)
{
    /// <summary>It was written before the host came up: whatever it says, no VM has its card by it.</summary>
    public bool IsOfEarlierBoot { get; init; }

    public bool Concerns(PciAddress gpu) => !IsOfEarlierBoot && Gpu is { } damaged && damaged.SharesSlotWith(gpu);

    public override string ToString() => IsOfEarlierBoot ? $"{What}; it is of an earlier boot, and counts for nothing" : $"{What}; {Hint}";
}
