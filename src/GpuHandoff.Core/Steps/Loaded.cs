using System.Collections.Immutable;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>What the two directions of a driver's module share: both ends, and how to tell where one is.</summary>
static class Loaded
{
    /// <summary>How a function is while its driver's module is down.</summary>
    public static Owner Out { get; } = new(null, Owner.Vfio);

    public static (ModuleState State, bool Moved) Look(string module, ImmutableArray<FunctionHome> functions, IKernel kernel) => (
        Surveyor.StateOf(module, kernel),
        Moved: functions.Any(f => Binding.Of(f.Function, kernel).Driver is { } driver && driver != f.Owner.Driver));
}
