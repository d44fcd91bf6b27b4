using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Kernel;

namespace GpuHandoff.Survey;

/// <summary>Who has called us.</summary>
static class Ancestry
{
    /// <summary>Our PID and those of our ancestors but the first process, nearest first.</summary>
    public static ImmutableArray<int> Of(IKernel kernel)
    {
        var pids = ImmutableArray.CreateBuilder<int>();
        if (int.TryParse(kernel.Link(Sys.Proc / "self"), NumberStyles.None, CultureInfo.InvariantCulture, out var pid))
        {
            // A PID that is in the list already is an ancestor that died and was replaced as we went.
            for (; pid > 1 && !pids.Contains(pid); pid = ProcessStat.Of(pid, kernel)?.Parent ?? 0)
                pids.Add(pid);
        }
        return pids.ToImmutable();
    }
}
