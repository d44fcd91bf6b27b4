using System.Globalization;
using System.Text.RegularExpressions;

namespace GpuHandoff.Lab.Vm;

/// <summary>What a call of the hook costs, in seconds by the clock of who waits for it: from its start to the end of its output.</summary>
/// <param name="Whole">All of it.</param>
/// <param name="Command">The same hand-over by the command of a person.</param>
/// <param name="Steps">What the hook says that the steps of the hand-over took, to a hundredth of a second.</param>
/// <param name="Empty">A static program that does nothing, called as the hook is.</param>
public sealed partial record HookCost(double Whole, double Command, double Steps, double Empty)
{
    /// <summary>What being a hook adds to the hand-over. The start of a program is in both.</summary>
    public double Overhead() => Whole - Command;

    /// <summary>Medians of both ways, of the VM 101, whose config must be there. The stand-in for Proxmox calls the hooks.</summary>
    public static (HookCost Start, HookCost Stop) Measure(LabVm vm, int rounds)
    {
        var (start, stop) = (new List<HookCost>(), new List<HookCost>());
        for (var round = 0; round <= rounds; round++)
        {
            var empty = Ask(vm, "exec-hookscript 101 pre-start local:snippets/true").Whole;
            var hooks = (Start: Ask(vm, "exec-hookscript 101 pre-start"), Stop: Ask(vm, "exec-hookscript 101 post-stop"));
            var commands = (
                Start: Ask(vm, $"run-timed gpu-handoff to_vfio --gpu {vm.Gpus[0].Address}").Whole,
                Stop: Ask(vm, $"run-timed gpu-handoff to_nvidia --gpu {vm.Gpus[0].Address}").Whole);
            // The first round is for warming up.
            if (round == 0)
                continue;
            start.Add(new(hooks.Start.Whole, commands.Start, hooks.Start.Steps, empty));
            stop.Add(new(hooks.Stop.Whole, commands.Stop, hooks.Stop.Steps, empty));
        }
        return (Middle(start), Middle(stop));
    }

    static HookCost Middle(List<HookCost> calls) => new(
        Median(calls.Select(c => c.Whole)), Median(calls.Select(c => c.Command)), Median(calls.Select(c => c.Steps)), Median(calls.Select(c => c.Empty)));

    static (double Whole, double Steps) Ask(LabVm vm, string words)
    {
        var said = vm.Run($"qm {words} 2>&1").Ok().Output;
        var took = vm.Run("tail -n 1 /run/lab-pve/hooks").Ok().Text.Split(' ')[3];
        return (Seconds(took), Phase().Matches(said).Sum(m => Seconds(m.Groups[1].Value)));
    }

    static double Seconds(string text) => double.Parse(text, CultureInfo.InvariantCulture);

    static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted[sorted.Length / 2];
    }

    // [gpu-handoff] bind: 0000:01:00.0 is bound to vfio-pci; 0000:01:00.1 is bound to vfio-pci (0.05 s)
    [GeneratedRegex(@"^\[gpu-handoff\] \w+: .*\((\d+\.\d+) s\)$", RegexOptions.Multiline)]
    private static partial Regex Phase();
}
