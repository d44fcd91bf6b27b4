namespace GpuHandoff.Machines;

/// <summary>A process that has a node of a GPU open, found by the device number: a container's copy of the node counts.</summary>
/// <param name="Path">The node as the process sees it.</param>
public sealed record GpuUser(int Pid, string Command, string Path, DeviceNode Node)
{
    public Belonging Of { get; init; } = new();

    /// <summary>When the process began, in clock ticks since boot: a PID alone may be somebody else's by now.</summary>
    /// <remarks>fs/proc/array.c:do_task_stat, field 22.</remarks>
    public ulong Started { get; init; }

    public override string ToString() => $"{Pid} {Command} ({Path})";
}
