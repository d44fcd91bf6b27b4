using System.Globalization;
using GpuHandoff.Kernel;

namespace GpuHandoff.Survey;

/// <summary>The clock on the wall, which others write into their files. Our own records count from the boot.</summary>
public static class WallClock
{
    // btime 1765000000
    /// <summary>What it shows at a time since boot; null where the kernel does not tell when it was booted.</summary>
    /// <remarks>
    /// fs/proc/stat.c:show_stat gives getboottime64, the difference between the clock and CLOCK_BOOTTIME: right also after the
    /// clock was set, and to the second, as that is all it shows.
    /// </remarks>
    public static DateTimeOffset? At(TimeSpan sinceBoot, IKernel kernel)
    {
        const string word = "btime ";
        // The year 8307: what a DateTimeOffset can hold, with room for any time since boot. 32 bits would end in 2038.
        const long latest = 200_000_000_000;
        foreach (var line in (kernel.Read(Sys.Proc / "stat") ?? "").Split('\n'))
        {
            if (line.StartsWith(word, StringComparison.Ordinal)
                && long.TryParse(line.AsSpan(word.Length), NumberStyles.None, CultureInfo.InvariantCulture, out var seconds)
                && seconds < latest)
            {
                return DateTimeOffset.FromUnixTimeSeconds(seconds) + sinceBoot;
            }
        }
        return null;
    }

    public static DateTimeOffset? Now(IKernel kernel) => At(kernel.Uptime, kernel);
}
