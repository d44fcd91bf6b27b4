using System.Collections.Immutable;
using System.Text.Json.Serialization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>
/// The functions to a driver whose module is not loaded. nvidia refuses to load where no card waits for it
/// (nvidia/nv.c:nvidia_init_module), so they are driverless and aimed at it before.
/// </summary>
public sealed record LoadDriver(string Module, ImmutableArray<string> Parameters, ImmutableArray<FunctionHome> Functions) : Step
{
    /// <summary>What mends a card that the driver does not take; for each function that has one.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public ImmutableArray<Ladder> Ladders { get; init; }

    public override string Say() => $"load {Module} for {string.Join(", ", Functions.Select(f => f.Function))}";

    public override string? SayElse() => Ladders is { IsDefaultOrEmpty: false }
        ? string.Join("; ", Ladders.Select(l =>
            $"if {Module} does not take {l.Slot[0].Slot}: once more{string.Concat(l.Rungs.Select(r => $", then {l.Say(r)}"))}"))
        : null;

    public override Step Undo() => new UnloadDriver(Module, Parameters, Functions) { Ladders = Ladders };

    public override Position Look(IKernel kernel) => Loaded.Look(Module, Functions, kernel) switch
    {
        (_, Moved: true) => Position.Elsewhere,
        (ModuleState.Loaded, _) when Functions.All(f => Binding.Of(f.Function, kernel) == f.Owner) => Position.There,
        _ => Position.OnTheWay,
    };

    public override void Run(IKernel kernel, Limits limits)
    {
        foreach (var (function, owner) in Functions)
            Binding.Aim(function, owner.Driver, kernel, limits);
        if (Surveyor.StateOf(Module, kernel) != ModuleState.Loaded)
        {
            Mending.Until(
                () => kernel.LoadModule(Module, Parameters, limits.Module), IsProbe,
                [.. from f in Functions let ladder = LadderOf(f.Function) where ladder is not null select (f.Function, ladder)], kernel, limits);
        }
        foreach (var (function, owner) in Functions)
        {
            // Loading probes every free card; this is for one that it passed over.
            if (owner.Driver is { } driver)
                Binding.Bind(function, driver, kernel, limits, LadderOf(function));
            Binding.Aim(function, owner.Only, kernel, limits);
        }
    }

    Ladder? LadderOf(PciAddress function) =>
        Ladders.IsDefaultOrEmpty ? null : Ladders.FirstOrDefault(l => l.Slot.Contains(function));

    // nvidia/nv.c:nvidia_init_module says ENODEV where its probe took no card at all, and modprobe has only words to pass on.
    // Any other word is about the module: missing, of another version, not allowed. No reset mends that.
    static bool IsProbe(KernelRefused refused) => refused.Reason.Contains("No such device", StringComparison.Ordinal);
}
