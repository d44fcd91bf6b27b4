namespace GpuHandoff.Machines;

/// <summary>A character device node: the numbers that say what it is, and who may open it.</summary>
/// <param name="Mode">Permission bits only, such as 0666 (octal).</param>
public sealed record DeviceNode(uint Major, uint Minor, uint Mode, uint Owner, uint Group)
{
    /// <summary>The same device, whatever the node's path, inode, owner or mode: a container's copy counts.</summary>
    public bool IsSameDevice(DeviceNode other) => Major == other.Major && Minor == other.Minor;
}
