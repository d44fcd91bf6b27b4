using System.Collections.Immutable;

namespace GpuHandoff.Machines;

/// <summary>The bridge above a card.</summary>
/// <param name="Resets">Whether this kernel offers a reset of all that is below it (<c>reset_subordinate</c>, from 6.13 on).</param>
/// <param name="Strangers">What sits below it and is not of the card's slot.</param>
public sealed record Upstream(PciAddress Bridge, bool Resets, ImmutableArray<PciAddress> Strangers);
