namespace GpuHandoff.Kernel;

/// <summary>
/// A call has not returned within its budget. It cannot be cancelled: the kernel may hold the device's lock for as long
/// as it likes, so nobody may touch that device until it answers or the machine is booted anew.
/// </summary>
public sealed class KernelSilent(string call, TimeSpan waited, TimeSpan since)
    : Exception($"{call}: no answer for {waited.TotalSeconds:0.#} s")
{
    /// <summary>What was asked, in words.</summary>
    public string Call { get; } = call;

    public TimeSpan Waited { get; } = waited;

    /// <summary>When it was asked, as time since boot.</summary>
    public TimeSpan Since { get; } = since;
}
