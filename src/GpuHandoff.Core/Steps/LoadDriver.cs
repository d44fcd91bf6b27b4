using System.Collections.Immutable;
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
    public override string Say() => $"load {Module} for {string.Join(", ", Functions.Select(f => f.Function))}";

    public override Step Undo() => new UnloadDriver(Module, Parameters, Functions);

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
            kernel.LoadModule(Module, Parameters, limits.Module);
        foreach (var (function, owner) in Functions)
        {
            // Loading probes every free card; this is for one that it passed over.
            if (owner.Driver is { } driver)
                Binding.Bind(function, driver, kernel, limits);
            Binding.Aim(function, owner.Only, kernel, limits);
        }
    }
}
