namespace GpuHandoff.Kernel;

/// <summary>The kernel said no, and said why: an errno where a system call was refused, 0 where a program failed.</summary>
public class KernelRefused(string call, int errno, string reason) : Exception($"{call}: {reason}")
{
    /// <summary>What was asked, in words: <c>write "0000:01:00.0" to /sys/bus/pci/drivers/nvidia/bind</c>.</summary>
    public string Call { get; } = call;

    public int Errno { get; } = errno;

    /// <summary>What to do about it, where that is known; null: the kernel log may tell.</summary>
    public virtual string? Hint => null;

    /// <summary>The kernel's or the program's own words: <c>ENODEV (No such device)</c>.</summary>
    public string Reason { get; } = reason;
}
