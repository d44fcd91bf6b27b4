namespace GpuHandoff.Kernel;

/// <summary>Which file it is, whatever its name: how /proc/locks tells of it.</summary>
/// <param name="Major">Of the file system's device.</param>
/// <param name="Minor">Of the file system's device.</param>
/// <param name="Modified">When it was last written, by the clock on the wall.</param>
public sealed record FileIdentity(uint Major, uint Minor, ulong Inode, DateTimeOffset Modified);
