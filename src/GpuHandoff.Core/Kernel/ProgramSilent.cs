namespace GpuHandoff.Kernel;

/// <summary>
/// A program (systemctl, docker, pct, nvidia-smi) has not ended within its budget. It hangs in something of its own, a daemon
/// or a file system that does not answer; no GPU counts as stuck for it.
/// </summary>
/// <param name="call">The program with its arguments.</param>
/// <param name="isOver">Whether SIGKILL has ended it; one that survives that hangs in a call into the kernel.</param>
public sealed class ProgramSilent(string call, string program, int pid, TimeSpan waited, bool isOver)
    : KernelRefused(call, 0, isOver
        ? $"it ran longer than {waited.TotalSeconds:0.#} s and was ended (process {pid})"
        : $"it ran longer than {waited.TotalSeconds:0.#} s, and SIGKILL does not end it: process {pid} hangs in a call of its own")
{
    public override string Hint => IsOver
        ? $"no GPU is stuck: see why {System.IO.Path.GetFileName(Program)} hangs, then try again"
        : $"no GPU is stuck: see where the program hangs (cat /proc/{Pid}/stack), a dead NFS for one, then try again";

    /// <summary>The program's path.</summary>
    public string Program { get; } = program;

    public int Pid { get; } = pid;

    /// <inheritdoc cref="ProgramSilent" path="/param[@name='isOver']"/>
    public bool IsOver { get; } = isOver;
}
