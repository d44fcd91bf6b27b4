namespace GpuHandoff.Machines;

/// <summary>A device node with its path.</summary>
public sealed record NamedNode(string Path, DeviceNode Node);
