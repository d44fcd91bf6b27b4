using GpuHandoff.Machines;

namespace GpuHandoff.Runs;

/// <summary>A record of a lease that cannot be read: whom its card is lent to, and since when, nobody can tell.</summary>
/// <param name="Gpu">By the record's name; null: that tells none, either.</param>
/// <param name="What">The file, the place in it, and the reason.</param>
/// <param name="Hint">The way out.</param>
public sealed record DamagedLease(PciAddress? Gpu, string What, string Hint)
{
    public bool Concerns(PciAddress gpu) => Gpu is { } damaged && damaged.SharesSlotWith(gpu);

    public override string ToString() => $"{What}; {Hint}";
}
