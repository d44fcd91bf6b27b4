using GpuHandoff.Machines;

namespace GpuHandoff.Kernel;

/// <summary>The programs that others are asked through, by their absolute paths: no shell, and no search for a name.</summary>
public static class Programs
{
    public const string Systemctl = "/usr/bin/systemctl";
    public const string NvidiaSmi = "/usr/bin/nvidia-smi";
    public const string Pct = "/usr/sbin/pct";
    public const string Qm = "/usr/sbin/qm";
    public const string Docker = "/usr/bin/docker";
    public const string Podman = "/usr/bin/podman";
    public const string SystemdRun = "/usr/bin/systemd-run";
    public const string SetPriv = "/usr/bin/setpriv";
    public const string MpsControl = "/usr/bin/nvidia-cuda-mps-control";

    /// <summary>What stops and starts a container.</summary>
    public static string Of(ContainerKind kind) => kind switch
    {
        ContainerKind.Lxc => Pct,
        ContainerKind.Docker => Docker,
        ContainerKind.Podman => Podman,
        _ => throw new ArgumentOutOfRangeException(nameof(kind)),
    };

    /// <summary>Runs a program and takes every exit code but 0 for a refusal, in the program's own words.</summary>
    public static string Demand(this IKernel kernel, TimeSpan budget, string program, params IReadOnlyList<string> arguments)
    {
        var (exit, output) = kernel.RunProgram(program, arguments, budget);
        return exit == 0
            ? output
            : throw new KernelRefused(
                $"{program} {string.Join(' ', arguments)}", 0, output is "" ? $"it ended with exit code {exit} and no word" : $"exit code {exit}: {output}");
    }
}
