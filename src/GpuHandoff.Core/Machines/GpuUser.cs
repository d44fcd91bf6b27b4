namespace GpuHandoff.Machines;

/// <summary>A process that has a node of a GPU open, found by the device number: a container's copy of the node counts.</summary>
/// <param name="Path">The node as the process sees it.</param>
public sealed record GpuUser(int Pid, string Command, string Path, DeviceNode Node)
{
    public override string ToString() => $"{Pid} {Command} ({Path})";
}
