using System.Globalization;
using System.Text.RegularExpressions;

namespace GpuHandoff.Lab.Vm;

/// <summary>What a call of the hook costs, in seconds by the clock of who waits for it: from its start to the end of its output.</summary>
/// <param name="Whole">All of it.</param>
/// <param name="Steps">
/// The steps of the hand-over, by the milliseconds of the log: each from the look before it to the look after it, with its line of
/// the journal. All else is not the hand-over: coming up, the config, locks, survey, plan, lease, watch, records, going down.
/// </param>
/// <param name="Empty">A program that does nothing, built as the hook is, and called as it is.</param>
/// <param name="Command">The same hand-over by the command of a person, to compare.</param>
public sealed partial record HookCost(double Whole, double Steps, double Empty, double Command)
{
    const string EmptyHook = "/var/lib/vz/snippets/empty-hook";
    const string Log = "/var/log/gpu-handoff.log";

    /// <summary>Everything but the hand-over itself, above an empty hook.</summary>
    public double Overhead() => Whole - Steps - Empty;

    /// <summary>Medians of both ways, of the VM 101, whose config must be there. The stand-in for Proxmox calls the hooks.</summary>
    /// <param name="empty">Where the program that does nothing is in the guest.</param>
    public static (HookCost Start, HookCost Stop) Measure(LabVm vm, int rounds, string empty)
    {
        vm.Run($"ln -sf {empty} {EmptyHook}").Ok();
        var (start, stop) = (new List<HookCost>(), new List<HookCost>());
        for (var round = 0; round <= rounds; round++)
        {
            var nothing = Ask(vm, "exec-hookscript 101 pre-start local:snippets/empty-hook").Whole;
            var hooks = (Start: Ask(vm, "exec-hookscript 101 pre-start"), Stop: Ask(vm, "exec-hookscript 101 post-stop"));
            var commands = (
                Start: Ask(vm, $"run-timed gpu-handoff to_vfio --gpu {vm.Gpus[0].Address}").Whole,
                Stop: Ask(vm, $"run-timed gpu-handoff to_nvidia --gpu {vm.Gpus[0].Address}").Whole);
            // The first round is for warming up.
            if (round == 0)
                continue;
            start.Add(new(hooks.Start.Whole, hooks.Start.Steps, nothing, commands.Start));
            stop.Add(new(hooks.Stop.Whole, hooks.Stop.Steps, nothing, commands.Stop));
        }
        return (Middle(start), Middle(stop));
    }

    // The round in the middle of the overheads, with the terms that it really had: medians of each would not add up.
    static HookCost Middle(List<HookCost> calls) => calls.OrderBy(c => c.Overhead()).ElementAt(calls.Count / 2) with { Command = Median(calls.Select(c => c.Command)) };

    static (double Whole, double Steps) Ask(LabVm vm, string words)
    {
        // A VM runs for longer than a watch takes to come up or to notice its end: nothing of the call before is at work any more.
        var said = vm.Run($"sleep 2; : >> {Log}; before=$(stat -c %s {Log}); qm {words} > /run/said 2>&1 || {{ cat /run/said >&2; exit 1; }}; tail -c +$((before + 1)) {Log}").Ok().Output;
        var took = vm.Run("tail -n 1 /run/lab-pve/hooks").Ok().Text.Split(' ')[3];
        return (double.Parse(took, CultureInfo.InvariantCulture), StepsOf(said));
    }

    static double StepsOf(string log)
    {
        var (sum, began) = (TimeSpan.Zero, (DateTime?)null);
        foreach (Match line in Step().Matches(log))
        {
            var now = DateTime.Parse(line.Groups[1].Value, CultureInfo.InvariantCulture);
            if (line.Groups[2].Success)
                began = now;
            else if (began is { } since)
                (sum, began) = (sum + (now - since), null);
        }
        return sum.TotalSeconds;
    }

    static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted[sorted.Length / 2];
    }

    // 2026-11-23T01:33:13.128Z [480]   … 0000:01:00.1: snd_hda_intel → vfio-pci
    // 2026-11-23T01:33:13.396Z [480]   0000:01:00.1: snd_hda_intel → vfio-pci (0.27 s)
    [GeneratedRegex(@"^(\S+) \[\d+\]   (… )?", RegexOptions.Multiline)]
    private static partial Regex Step();
}
