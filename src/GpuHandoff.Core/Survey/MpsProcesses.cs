using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>The processes of CUDA MPS: a control daemon that has no card open, and its servers, which have.</summary>
public static class MpsProcesses
{
    const string Control = "nvidia-cuda-mps-control";
    const int LongestValue = 4096;

    /// <summary>One of them as /proc shows it.</summary>
    /// <param name="IsControl">The daemon; else one of its servers.</param>
    public sealed record Found(int Pid, ulong Started, bool IsControl, int Parent, Belonging Of, MpsDaemon Daemon);

    public static List<Found> All(IKernel kernel)
    {
        var found = new List<Found>();
        foreach (var name in kernel.List(Sys.Proc))
        {
            if (!int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var pid)
                || kernel.Read(Sys.Proc / name / "comm") != MpsDaemon.Comm
                || ProcessStat.Of(pid, kernel) is not { } stat || stat.HasEnded())
            {
                continue;
            }
            var status = kernel.Read(Sys.Proc / name / "status") ?? "";
            var environment = Environment(kernel.Read(Sys.Proc / name / "environ") ?? "");
            found.Add(new(
                pid, stat.Started, IsControl(kernel.Read(Sys.Proc / name / "cmdline") ?? ""), stat.Parent,
                Cgroup.Parse(kernel.Read(Sys.Proc / name / "cgroup") ?? ""),
                new(PipesOf(environment), ProcessFiles.User(status) ?? 0, ProcessFiles.Group(status) ?? 0, environment)));
        }
        return found;
    }

    /// <summary>Every daemon with its servers.</summary>
    public static ImmutableArray<RunningMps> Daemons(IKernel kernel)
    {
        var all = All(kernel);
        return
        [
            .. from daemon in all.Where(f => f.IsControl).DistinctBy(f => f.Daemon.Pipes)
               select new RunningMps(daemon.Daemon,
                   [.. all.Where(f => !f.IsControl && (f.Parent == daemon.Pid || f.Daemon.Pipes == daemon.Daemon.Pipes)).Select(f => f.Pid)]),
        ];
    }

    /// <summary>The processes of one daemon: itself, and its children. A server that outlived it is known by its pipes.</summary>
    public static List<Found> Of(MpsDaemon daemon, IKernel kernel)
    {
        var all = All(kernel);
        var controls = all.Where(f => f.IsControl && f.Daemon.Pipes == daemon.Pipes).Select(f => f.Pid).ToList();
        return [.. all.Where(f => f.Daemon.Pipes == daemon.Pipes || controls.Contains(f.Parent))];
    }

    // nvidia-cuda-mps-control\0-d\0          the server: nvidia-cuda-mps-server\0
    static bool IsControl(string commandLine) => commandLine.Split('\0')[0] is var program
        && program[(program.LastIndexOf('/') + 1)..] == Control;

    // CUDA_MPS_PIPE_DIRECTORY=/run/mps\0PATH=/usr/bin\0CUDA_VISIBLE_DEVICES=0\0
    /// <summary>What concerns MPS, a line each. It is a process's own word, and only ever handed to MPS again.</summary>
    public static string Environment(string text) => string.Join('\n', text.Split('\0')
        .Where(entry => entry.Length <= LongestValue && !entry.Any(char.IsControl)
            && entry.Split('=', 2) is [var name, _] && (name == "CUDA_VISIBLE_DEVICES" || name.StartsWith("CUDA_MPS_", StringComparison.Ordinal))
            && name.All(c => char.IsAsciiLetterUpper(c) || char.IsAsciiDigit(c) || c == '_'))
        .Order(StringComparer.Ordinal));

    static string PipesOf(string environment) => environment.Split('\n')
        .Select(entry => entry.Split('=', 2)).FirstOrDefault(entry => entry is [MpsDaemon.PipesName, _]) is [_, { Length: > 0 } pipes]
        ? pipes
        : MpsDaemon.DefaultPipes;
}
