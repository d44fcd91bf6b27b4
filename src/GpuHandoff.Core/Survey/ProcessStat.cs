using System.Globalization;
using GpuHandoff.Kernel;

namespace GpuHandoff.Survey;

/// <summary>Which process has a PID, and whether it still lives.</summary>
/// <param name="State">R, S, D, Z and so on.</param>
/// <param name="Started">In clock ticks since boot. With the PID it tells one process from every other of this boot.</param>
public sealed record ProcessStat(char State, int Parent, ulong Started)
{
    /// <summary>A zombie has closed its files and waits only for its parent to be told.</summary>
    public bool HasEnded() => State is 'Z' or 'X';

    /// <summary>Null where no such process is.</summary>
    public static ProcessStat? Of(int pid, IKernel kernel) =>
        kernel.Read(Sys.Proc / pid.ToString(CultureInfo.InvariantCulture) / "stat") is { } text ? Parse(text) : null;

    /// <summary>Whether this very process is there and has not ended.</summary>
    public static bool Lives(int pid, ulong started, IKernel kernel) =>
        Of(pid, kernel) is { } now && now.Started == started && !now.HasEnded();

    // 4211 (tmux: server) S 1 4211 4211 0 -1 4194560 81 0 0 0 12 3 0 0 20 0 8 0 123456 …
    // The name is the process's own choice, brackets and blanks included (fs/proc/array.c:do_task_stat).
    public static ProcessStat? Parse(string text)
    {
        var end = text.LastIndexOf(')');
        if (end < 0)
            return null;
        var fields = text[(end + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        // Fields count from 1; the third is the first behind the name.
        const int state = 3 - 3, parent = 4 - 3, started = 22 - 3;
        return fields.Length > started && fields[state].Length == 1
            && int.TryParse(fields[parent], NumberStyles.None, CultureInfo.InvariantCulture, out var up)
            && ulong.TryParse(fields[started], NumberStyles.None, CultureInfo.InvariantCulture, out var began)
            ? new(fields[state][0], up, began)
            : null;
    }
}
