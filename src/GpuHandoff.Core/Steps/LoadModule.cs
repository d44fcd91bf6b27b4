using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>A module that owns no function of the card: loaded for what it offers.</summary>
/// <param name="Parameters">Those that it ran with before, as <c>name=value</c>.</param>
/// <param name="Stays">It may stay when the rest is undone: others may use it by then.</param>
public sealed record LoadModule(string Module, ImmutableArray<string> Parameters, bool Stays = false) : Step
{
    public override string Say() => Parameters is [] ? $"load {Module}" : $"load {Module} ({string.Join(' ', Parameters)})";

    public override Step? Undo() => Stays ? null : new UnloadModule(Module, Parameters);

    public override string SayNoUndo() => "none, it may stay";

    public override Position Look(IKernel kernel) =>
        Surveyor.StateOf(Module, kernel) is ModuleState.Loaded or ModuleState.BuiltIn ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits) => kernel.LoadModule(Module, Parameters, limits.Module);
}
