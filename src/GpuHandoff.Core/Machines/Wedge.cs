using System.Collections.Immutable;
using GpuHandoff.Kernel;

namespace GpuHandoff.Machines;

/// <summary>
/// A card with a call that never came back: the kernel holds its lock, and whoever writes to it next hangs as well. Kept
/// for the rest of the boot, so that every later run leaves the card alone.
/// </summary>
/// <param name="Call">The call that hangs, in words.</param>
/// <param name="Since">When it was made, as time since boot.</param>
/// <param name="Process">Who is still in it; null only in marks of earlier versions, which marked for programs, too.</param>
/// <param name="NotUndone">What stayed changed, in words, newest first.</param>
public sealed record Wedge(
    string BootId, PciAddress Gpu, string Call, TimeSpan Since, LeftBehind? Process, ImmutableArray<string> NotUndone)
{
    public const int Newest = 1;

    /// <summary>The mark's format, so that a later program can tell what it reads.</summary>
    public int Version { get; init; } = Newest;
}
