namespace GpuHandoff.Kernel;

/// <summary>
/// The helper process that makes our calls did not answer, and was not in a call that may hold a GPU: it did not come up, was
/// stopped, or got no processor. No GPU counts as stuck for it.
/// </summary>
/// <param name="pid">The helper's.</param>
public sealed class HelperSilent(string call, int pid, string reason) : KernelRefused(call, 0, reason)
{
    public override string Hint => "no GPU is stuck: see whether the host has processors and memory to spare, then try again";

    public int Pid { get; } = pid;
}
