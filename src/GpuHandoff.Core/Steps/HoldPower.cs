using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>A function's power settings, before and after.</summary>
public sealed record PowerChange(PciAddress Function, Power From, Power To);

/// <summary>
/// The power settings of a card's functions, in one step: a card that fell asleep for good under vfio-pci is only woken by
/// a cold start, and its functions go together (quirks.c:quirk_gpu_hda makes the siblings wait for function 0).
/// </summary>
public sealed record HoldPower(ImmutableArray<PowerChange> Functions) : Step
{
    public override string Say() => string.Join("; ", Functions.GroupBy(f => (f.From, f.To))
        .Select(same => $"power of {string.Join(", ", same.Select(f => f.Function))}: {same.Key.From} → {same.Key.To}"));

    public override Step Undo() => new HoldPower([.. Functions.Select(f => f with { From = f.To, To = f.From })]);

    public override Position Look(IKernel kernel) =>
        Functions.All(f => Surveyor.PowerOf(f.Function, kernel) == f.To) ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        foreach (var (function, _, to) in Functions)
            Set(function, to, kernel, limits);
    }

    /// <summary>Writes what is otherwise, and believes only what reads back.</summary>
    public static void Set(PciAddress function, Power to, IKernel kernel, Limits limits)
    {
        var now = Surveyor.PowerOf(function, kernel);
        var path = Sys.Function(function);
        // Awake first: a function in D3cold is brought back before it is forbidden to go there.
        if (to.Control is { } control && now?.Control != control)
            kernel.Write(path / "power/control", control, limits.Write);
        if (to.D3Cold is { } cold && now?.D3Cold != cold)
            kernel.Write(path / "d3cold_allowed", cold ? "1" : "0", limits.Write);
        if (Surveyor.PowerOf(function, kernel) is var then && then != to)
            throw new KernelRefused($"power of {function}: {to}", 0, $"the kernel reported success, but it reads {then?.ToString() ?? "nothing"}");
    }
}
