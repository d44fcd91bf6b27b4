using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>Who plays or records on a sound card, by ALSA's own word (sound/core/pcm.c:snd_pcm_substream_proc_status_read).</summary>
public static class Substreams
{
    const string Key = "owner_pid";

    static readonly TimeSpan _budget = TimeSpan.FromSeconds(5);

    // closed
    //
    // state: RUNNING
    // owner_pid   : 4211
    // trigger_time: 1204.004211000
    /// <summary>The process that opened a substream; null: it is closed.</summary>
    public static int? Parse(string status)
    {
        foreach (var line in status.Split('\n'))
        {
            if (line.StartsWith(Key, StringComparison.Ordinal) && line.Split(':') is [_, var number]
                && int.TryParse(number, NumberStyles.AllowLeadingWhite | NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture, out var pid) && pid > 0)
            {
                return pid;
            }
        }
        return null;
    }

    /// <summary>
    /// The owners of the substreams of a function's sound cards. Read where a count is not explained, to name a process: each of these
    /// files takes a lock of the sound card's.
    /// </summary>
    internal static ImmutableArray<int> OwnersOf(PciAddress function, IKernel kernel)
    {
        try
        {
            var owners = from card in kernel.List(Sys.Function(function) / "sound")
                         let folder = Sys.Proc / "asound" / card
                         from pcm in kernel.List(folder)
                         where pcm.StartsWith("pcm", StringComparison.Ordinal)
                         from substream in kernel.List(folder / pcm)
                         where substream.StartsWith("sub", StringComparison.Ordinal)
                         let owner = Parse(kernel.ReadSlow(folder / pcm / substream / "status", _budget) ?? "")
                         where owner is not null
                         select owner.Value;
            return [.. owners.Distinct()];
        }
        catch (Exception failed) when (failed is KernelRefused or KernelSilent)
        {
            // The count is what refuses; this would only have named the process.
            return [];
        }
    }
}
