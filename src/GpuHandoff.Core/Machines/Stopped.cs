using System.Text.Json.Serialization;

namespace GpuHandoff.Machines;

/// <summary>Something that was running and that a hand-over stopped: one of its values is there.</summary>
/// <param name="Unit">A unit of systemd, the host's target of the card among them.</param>
/// <param name="Persistence">The function whose persistence mode was switched off.</param>
public sealed record Stopped(string? Unit = null, Container? Container = null, PciAddress? Persistence = null)
{
    /// <summary>A control daemon of CUDA MPS that belonged to no unit.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public MpsDaemon? Mps { get; init; }

    /// <summary>What it is, for a person.</summary>
    public string Say() => Unit ?? Container?.ToString() ?? Mps?.ToString() ?? $"persistence mode of {Persistence}";
}
