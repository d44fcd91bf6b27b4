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

    // G0: system timer : 4000.000us (10000000 ticks)
    // P1-3-0: PCM playback 1-3-0 : SLAVE
    //   Client application 4211 : running
    /// <summary>The processes that have a timer of a sound card open (sound/core/timer.c:snd_timer_proc_read).</summary>
    /// <param name="card">As sysfs names it: <c>card1</c>.</param>
    public static IEnumerable<int> TimerClients(string timers, string card)
    {
        var isOurs = false;
        foreach (var line in timers.Split('\n'))
        {
            if (!line.StartsWith(' '))
                isOurs = line.StartsWith($"P{card["card".Length..]}-", StringComparison.Ordinal) || line.StartsWith($"C{card["card".Length..]}-", StringComparison.Ordinal);
            else if (isOurs && line.Trim().Split(' ') is ["Client", "application", var number, ..]
                && int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out var pid))
                yield return pid;
        }
    }

    /// <summary>
    /// The owners of the substreams of a function's sound cards. Read where a count is not explained, to name a process: each of these
    /// files takes a lock of the sound card's.
    /// </summary>
    internal static ImmutableArray<int> OwnersOf(PciAddress function, IKernel kernel)
    {
        try
        {
            var cards = kernel.List(Sys.Function(function) / "sound");
            if (cards.Count == 0)
                return [];
            var timers = kernel.ReadSlow(Sys.Proc / "asound/timers", _budget) ?? "";
            var owners = from card in kernel.List(Sys.Function(function) / "sound")
                         let folder = Sys.Proc / "asound" / card
                         from pcm in kernel.List(folder)
                         where pcm.StartsWith("pcm", StringComparison.Ordinal)
                         from substream in kernel.List(folder / pcm)
                         where substream.StartsWith("sub", StringComparison.Ordinal)
                         let owner = Parse(kernel.ReadSlow(folder / pcm / substream / "status", _budget) ?? "")
                         where owner is not null
                         select owner.Value;
            return [.. owners.Concat(cards.SelectMany(card => TimerClients(timers, card))).Distinct()];
        }
        catch (Exception failed) when (failed is KernelRefused or KernelSilent)
        {
            // The count is what refuses; this would only have named the process.
            return [];
        }
    }
}
