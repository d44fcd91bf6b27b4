using System.Collections.Immutable;
using System.Text.Json.Serialization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>The functions off their driver by unloading its module: the one gate that refuses at once and breaks nothing.</summary>
/// <param name="Functions">Each with the owner that it has while the module is loaded.</param>
public sealed record UnloadDriver(string Module, ImmutableArray<string> Parameters, ImmutableArray<FunctionHome> Functions) : Step
{
    /// <summary>What mends a card that the driver does not take; for each function that has one.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public ImmutableArray<Ladder> Ladders { get; init; }

    public override string Say() => $"aim {string.Join(", ", Functions.Select(f => f.Function))} at {Owner.Vfio} and unload {Module}";

    public override Step Undo() => new LoadDriver(Module, Parameters, Functions) { Ladders = Ladders };

    public override Position Look(IKernel kernel) => Loaded.Look(Module, Functions, kernel) switch
    {
        (_, Moved: true) => Position.Elsewhere,
        (ModuleState.Absent, _) when Functions.All(f => Binding.Of(f.Function, kernel) == Loaded.Out) => Position.There,
        _ => Position.OnTheWay,
    };

    public override void Run(IKernel kernel, Limits limits)
    {
        // Before the unload, or a udev rule that loads the driver again gives it the card in between.
        foreach (var (function, _) in Functions)
            Binding.Aim(function, Owner.Vfio, kernel, limits);
        if (Surveyor.StateOf(Module, kernel) != ModuleState.Absent)
            Unloading.Patiently(Module, kernel, limits);
    }
}
