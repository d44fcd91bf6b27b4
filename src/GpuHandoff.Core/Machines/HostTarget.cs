using System.Collections.Immutable;

namespace GpuHandoff.Machines;

/// <summary>
/// <c>gpu-handoff-host@0000:01:00.0.target</c>: active while the card is the host's. Units that are bound to it come and go
/// with it, and nobody has to name them in a policy.
/// </summary>
/// <param name="Bound">Active units that systemd takes down with it, as they were found.</param>
public sealed record HostTarget(PciAddress Gpu, string Unit, bool IsActive, ImmutableArray<string> Bound)
{
    /// <summary>Units that are bound to it by themselves, up or down.</summary>
    public ImmutableArray<string> Dependants { get; init; } = [];

    const string Prefix = "gpu-handoff-host@";

    public const string Template = $"{Prefix}.target";

    /// <summary>Colons and full stops need no escape in a unit's name (systemd.unit(5), VALID_CHARS).</summary>
    public static string UnitOf(PciAddress gpu) => $"{Prefix}{gpu}.target";

    public static bool IsOne(string unit) => unit.StartsWith(Prefix, StringComparison.Ordinal);
}
