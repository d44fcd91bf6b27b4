using System.Collections.Immutable;

namespace GpuHandoff.Machines;

/// <summary>A frame buffer (/sys/class/graphics/fbN) and the PCI function behind it, null for a firmware's own.</summary>
public sealed record FrameBuffer(string Name, string Driver, PciAddress? Function);

/// <summary>A DRM card with its nodes (card0, renderD128) and the PCI function behind it.</summary>
public sealed record DrmCard(PciAddress Function, ImmutableArray<string> Nodes);

/// <summary>A console driver of the kernel's terminals (/sys/class/vtconsole/vtconN).</summary>
/// <param name="Name">In the kernel's words: <c>(M) frame buffer device</c>. Numbers change, names stay.</param>
public sealed record VtConsole(string Number, string Name, bool Bound);
