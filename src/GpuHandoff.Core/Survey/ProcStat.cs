using System.Globalization;

namespace GpuHandoff.Survey;

/// <summary>What /proc/PID/stat tells of a process.</summary>
/// <param name="State">R, S, D, Z …: one letter.</param>
/// <param name="Started">Clock ticks after boot: with the PID it names one process for the whole boot.</param>
public sealed record ProcStat(char State, ulong Started)
{
    /// <summary>Reads the line; null where it is none (the process has ended).</summary>
    /// <remarks>
    /// fs/proc/array.c:do_task_stat. The name may hold anything, a closing parenthesis too, so the fields are counted from
    /// the last one: <c>4211 (gpu-handoff) S 1 4211 4211 0 -1 4194304 … 22nd field: 8812 …</c>
    /// </remarks>
    public static ProcStat? Parse(string text)
    {
        var fields = text[(text.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return fields.Length >= 20 && fields[0] is [var state]
            && ulong.TryParse(fields[19], NumberStyles.None, CultureInfo.InvariantCulture, out var started)
            ? new(state, started)
            : null;
    }
}
