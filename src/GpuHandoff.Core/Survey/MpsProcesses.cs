using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>The processes of CUDA MPS: a control daemon that has no card open, and its servers, which have.</summary>
/// <remarks>
/// The host's only. Each container has a /tmp/nvidia-mps of its own, and so has a unit with PrivateTmp=: a daemon there is
/// another one, whatever its pipes are called, and its pipe is not to be reached from here. Which processes are MPS's says
/// <see cref="MpsDaemon.IsPart"/>; which daemon a server belongs to, its parent, or its account together with its pipes: the
/// pipes alone are its own word.
/// </remarks>
public static class MpsProcesses
{
    const int LongestValue = 4096;

    /// <summary>One of them as /proc shows it.</summary>
    /// <param name="IsControl">The daemon; else one of its servers.</param>
    public sealed record Found(int Pid, ulong Started, bool IsControl, int Parent, Belonging Of, MpsDaemon Daemon);

    public static List<Found> All(IKernel kernel)
    {
        var found = new List<Found>();
        var (pids, mounts) = (kernel.Link(Sys.Proc / "self/ns/pid"), kernel.Link(Sys.Proc / "self/ns/mnt"));
        foreach (var name in kernel.List(Sys.Proc))
        {
            if (!int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var pid)
                // Cheap, and true of each of them; the proof comes below.
                || kernel.Read(Sys.Proc / name / "comm") != MpsDaemon.Comm
                || ProcessStat.Of(pid, kernel) is not { } stat || stat.HasEnded())
            {
                continue;
            }
            var of = Cgroup.Parse(kernel.Read(Sys.Proc / name / "cgroup") ?? "");
            if (of.Container is not null || IsApart(Sys.Proc / name / "ns/pid", pids, kernel) || IsApart(Sys.Proc / name / "ns/mnt", mounts, kernel))
                continue;
            var status = kernel.Read(Sys.Proc / name / "status") ?? "";
            var environment = Environment(kernel.Read(Sys.Proc / name / "environ") ?? "");
            var exe = kernel.Link(Sys.Proc / name / "exe");
            // One that has ended meanwhile, or whose PID is another's by now, is none: it must not pass for root's.
            if (ProcessFiles.User(status) is not { } user || ProcessFiles.Group(status) is not { } group
                || !MpsDaemon.IsPart(exe, user, of)
                || ProcessStat.Of(pid, kernel) is not { } still || still.HasEnded() || still.Started != stat.Started)
            {
                continue;
            }
            found.Add(new(pid, stat.Started, MpsDaemon.IsControl(exe), stat.Parent, of, new(PipesOf(environment), user, group, environment)));
        }
        return found;
    }

    /// <summary>Every daemon with its servers.</summary>
    public static ImmutableArray<RunningMps> Daemons(IKernel kernel)
    {
        var all = All(kernel);
        return
        [
            .. from daemon in all.Where(f => f.IsControl).DistinctBy(f => (f.Daemon.Pipes, f.Daemon.User))
               select new RunningMps(daemon.Daemon,
                   [.. all.Where(f => !f.IsControl && (f.Parent == daemon.Pid || IsOf(daemon.Daemon, f))).Select(f => f.Pid)])
               {
                   Unit = daemon.Of.Unit,
               },
        ];
    }

    /// <summary>The processes of one daemon: itself, and its children. A server that outlived it is known by its account and its pipes.</summary>
    public static List<Found> Of(MpsDaemon daemon, IKernel kernel)
    {
        var all = All(kernel);
        var controls = all.Where(f => f.IsControl && IsOf(daemon, f)).Select(f => f.Pid).ToList();
        return [.. all.Where(f => IsOf(daemon, f) || controls.Contains(f.Parent))];
    }

    // pid:[4026531836]
    static bool IsApart(SysPath space, string? ours, IKernel kernel) => ours is not null && kernel.Link(space) is { } its && its != ours;

    static bool IsOf(MpsDaemon daemon, Found found) => found.Daemon.Pipes == daemon.Pipes && found.Daemon.User == daemon.User;

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
