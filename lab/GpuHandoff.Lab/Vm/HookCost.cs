using System.Globalization;
using System.Text.RegularExpressions;

namespace GpuHandoff.Lab.Vm;

/// <summary>What a call of the hook costs, in seconds by the clock of who waits for it: from its start to the end of its output.</summary>
/// <param name="Whole">All of it.</param>
/// <param name="HandOver">What it says that the steps of the hand-over took, to a hundredth of a second.</param>
/// <param name="Empty">A static program that does nothing, called as the hook is.</param>
public sealed partial record HookCost(double Whole, double HandOver, double Empty)
{
    /// <summary>What the hook adds to the hand-over, above a hook that does nothing.</summary>
    public double Overhead() => Whole - HandOver - Empty;

    /// <summary>Medians of both ways, of the VM 101, whose config must be there. The stand-in for Proxmox calls the hooks.</summary>
    public static (HookCost Start, HookCost Stop) Measure(LabVm vm, int rounds)
    {
        var (empty, start, stop) = (new List<double>(), new List<Call>(), new List<Call>());
        for (var round = 0; round <= rounds; round++)
        {
            var calls = (Empty: Ask(vm, "pre-start local:snippets/true"), Start: Ask(vm, "pre-start"), Stop: Ask(vm, "post-stop"));
            // The first round is for warming up.
            if (round == 0)
                continue;
            empty.Add(calls.Empty.Whole);
            start.Add(calls.Start);
            stop.Add(calls.Stop);
        }
        return (Of(start, empty), Of(stop, empty));
    }

    static HookCost Of(List<Call> calls, List<double> empty) =>
        new(Median(calls.Select(c => c.Whole)), Median(calls.Select(c => c.HandOver)), Median(empty));

    static Call Ask(LabVm vm, string words)
    {
        var said = vm.Run($"qm exec-hookscript 101 {words} 2>&1").Ok().Output;
        var took = vm.Run("tail -n 1 /run/lab-pve/hooks").Ok().Text.Split(' ')[3];
        return new(Seconds(took), Phase().Matches(said).Sum(m => Seconds(m.Groups[1].Value)));
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

    sealed record Call(double Whole, double HandOver);
}
