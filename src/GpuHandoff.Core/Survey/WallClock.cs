using System.Globalization;
using GpuHandoff.Kernel;

namespace GpuHandoff.Survey;

/// <summary>The clock on the wall, for what others have written down by it.</summary>
static class WallClock
{
    // btime 1765000000
    /// <summary>Seconds since 1970; null where the machine does not tell (a recorded one).</summary>
    /// <remarks>fs/proc/stat.c:show_stat: when the machine was booted, by today's clock.</remarks>
    public static long? Now(IKernel kernel)
    {
        foreach (var line in (kernel.Read(Sys.Proc / "stat") ?? "").AsSpan().EnumerateLines())
        {
            if (line.StartsWith("btime ") && long.TryParse(line["btime ".Length..], NumberStyles.None, CultureInfo.InvariantCulture, out var boot))
                return boot + (long)kernel.Uptime.TotalSeconds;
        }
        return null;
    }
}
