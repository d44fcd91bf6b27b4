namespace GpuHandoff.Kernel;

/// <summary>
/// A program (systemctl, docker, pct, nvidia-smi) has not ended within its budget. It hangs in something of its own, a daemon
/// or a file system that does not answer; no GPU counts as stuck for it.
/// </summary>
public sealed class ProgramSilent : KernelRefused
{
    /// <summary>It was asked, and did not answer in time.</summary>
    /// <param name="call">The program with its arguments.</param>
    /// <param name="isOver">Whether SIGKILL has ended it; one that survives that hangs in a call into the kernel.</param>
    public ProgramSilent(string call, string program, int pid, TimeSpan waited, bool isOver)
        : base(call, 0, isOver
            ? $"it ran longer than {waited.TotalSeconds:0.#} s and was ended (process {pid})"
            : $"it ran longer than {waited.TotalSeconds:0.#} s, and SIGKILL does not end it: process {pid} hangs in a call of its own")
        => (Program, Pid, IsOver) = (program, pid, isOver);

    /// <summary>It is not even started: it did not answer before.</summary>
    public ProgramSilent(string call, ProgramSilent earlier)
        : base(call, 0, $"not tried: {System.IO.Path.GetFileName(earlier.Program)} did not answer before ({earlier.Call})")
        => (Program, Pid, IsOver) = (earlier.Program, earlier.Pid, true);

    public override string Hint => IsOver
        ? $"no GPU is stuck: see why {System.IO.Path.GetFileName(Program)} hangs, then try again"
        : $"no GPU is stuck: see where the program hangs (cat /proc/{Pid}/stack), a dead NFS for one, then try again";

    /// <summary>The program's path.</summary>
    public string Program { get; }

    public int Pid { get; }

    /// <summary>Whether no process of it is left.</summary>
    public bool IsOver { get; }
}
