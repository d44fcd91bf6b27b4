namespace GpuHandoff.Machines;

/// <summary>Something that was running and that a hand-over stopped: one of its three values is there.</summary>
/// <param name="Persistence">The function whose kernel persistence mode was switched off.</param>
public sealed record Stopped(string? Unit = null, Container? Container = null, PciAddress? Persistence = null);
