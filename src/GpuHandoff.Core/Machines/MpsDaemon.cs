using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace GpuHandoff.Machines;

/// <summary>A running control daemon of CUDA MPS with its servers' PIDs.</summary>
public sealed record RunningMps(MpsDaemon Daemon, ImmutableArray<int> Servers)
{
    /// <summary>What it was started from: its own unit, or one that did far more than that.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Unit { get; init; }
}

/// <summary>
/// A control daemon of CUDA MPS that no unit owns: started by hand or by a script. Known by its pipe directory, which it
/// has to itself; its servers, which have the cards open, are its children.
/// </summary>
/// <param name="Pipes">CUDA_MPS_PIPE_DIRECTORY.</param>
/// <param name="Environment">What it was told of MPS and of the cards, a <c>NAME=VALUE</c> a line.</param>
public sealed record MpsDaemon(string Pipes, uint User, uint Group, string Environment)
{
    /// <summary>What the kernel keeps of both programs' names (include/linux/sched.h:TASK_COMM_LEN).</summary>
    public const string Comm = "nvidia-cuda-mps";

    const string Folder = "/usr/bin/";
    const string Control = "nvidia-cuda-mps-control";
    const string Server = "nvidia-cuda-mps-server";

    public const string PipesName = "CUDA_MPS_PIPE_DIRECTORY";

    /// <summary>nvidia-cuda-mps-control(1), "Environment".</summary>
    public const string DefaultPipes = "/tmp/nvidia-mps";

    /// <summary>The units in which we started one again. They are gone with their daemon, so there is nothing to start.</summary>
    public const string OurUnits = "gpu-handoff-mps-";

    /// <summary>
    /// Whether a process is one of MPS's: by its program, and run by root or by a unit of the system's. What a user starts in
    /// his login, or calls so, is that user's process.
    /// </summary>
    /// <remarks>Of root's processes the name of the file is enough: not every distribution has it in /usr/bin.</remarks>
    public static bool IsPart(string? exe, uint? user, Belonging of) => user == 0
        ? ProgramFile.NameOf(exe) is Control or Server
        : user is not null && of is { Unit: not null } && ProgramFile.PathOf(exe) is Folder + Control or Folder + Server;

    /// <summary>Of those, the daemon that has no card open.</summary>
    public static bool IsControl(string? exe) => ProgramFile.NameOf(exe) == Control;

    public override string ToString() => $"CUDA MPS ({Pipes})";
}
