using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>A module that owns no function of the card, taken down. EAGAIN (in use) leaves it as it was.</summary>
public sealed record UnloadModule(string Module, ImmutableArray<string> Parameters) : Step
{
    public override string Say() => $"unload {Module}";

    public override Step Undo() => new LoadModule(Module, Parameters);

    public override Position Look(IKernel kernel) =>
        Surveyor.StateOf(Module, kernel) == ModuleState.Absent ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits) => Unloading.Patiently(Module, kernel, limits);
}
