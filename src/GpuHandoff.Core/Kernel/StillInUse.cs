namespace GpuHandoff.Kernel;

/// <summary>A write was not made, because what had to hold right before it did not: nothing was changed.</summary>
public sealed class StillInUse(string call, string reason) : KernelRefused(call, Kernel.Errno.Busy, reason);
