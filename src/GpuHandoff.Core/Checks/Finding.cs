using System.Collections.Immutable;

namespace GpuHandoff.Checks;

/// <summary>One thing that stands in the way, with its evidence and the way out.</summary>
/// <param name="Code">The check's name, for scripts and docs/checks.md.</param>
public sealed record Finding(string Code, string What, ImmutableArray<string> Evidence, string Hint);
