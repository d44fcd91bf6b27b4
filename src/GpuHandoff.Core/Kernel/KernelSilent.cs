namespace GpuHandoff.Kernel;

/// <summary>
/// A call that may hold a GPU has not returned within its budget: a sysfs write, a module on its way in or out, a read of the
/// GPU. It cannot be cancelled: the kernel may hold the device's lock for as long as it likes, so no run may touch that device
/// until it answers or the machine is booted again.
/// </summary>
/// <remarks>
/// Only such a call. A program that hangs is a <see cref="ProgramSilent"/>, a helper process that does not answer a
/// <see cref="HelperSilent"/>: neither says anything of a GPU.
/// </remarks>
/// <param name="process">The process that is still in the call: by this it can be seen later whether it has returned.</param>
public sealed class KernelSilent(string call, TimeSpan waited, TimeSpan since, LeftBehind process)
    : Exception($"{call}: no answer for {waited.TotalSeconds:0.#} s")
{
    /// <summary>What was asked, in words.</summary>
    public string Call { get; } = call;

    public TimeSpan Waited { get; } = waited;

    /// <summary>When it was asked, as time since boot.</summary>
    public TimeSpan Since { get; } = since;

    /// <summary>The process that is still in the call.</summary>
    public LeftBehind Process { get; } = process;
}

/// <summary>A process of ours that the kernel does not let go.</summary>
/// <param name="Started">As /proc/PID/stat tells it, so that a later process with the same number is not taken for it.</param>
/// <param name="Where">
/// What the kernel shows of it, for a person. No decision hangs on it: nvidia's wait shows S, R or D
/// (nvidia/nv-time.h:nv_sleep_ms).
/// </param>
public sealed record LeftBehind(int Pid, ulong Started, string Where)
{
    public override string ToString() => Where.Length == 0 ? $"process {Pid}" : $"process {Pid}, {Where}";
}
