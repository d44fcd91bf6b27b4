using System.Collections.Immutable;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Steps;

namespace GpuHandoff.Runs;

/// <summary>The steps that start again what was stopped, and what of it a record still has to remember.</summary>
static class Restarts
{
    public static bool IsOne(Step step) => ByHand(step) is not null;

    /// <summary>The command that does the same; null: the step starts nothing.</summary>
    public static string? ByHand(Step step) => step switch
    {
        StartUnit start => $"systemctl start {start.Unit}",
        StartTarget start => $"systemctl start {start.Unit}",
        StartContainer { Container: var container } => $"{Path.GetFileName(Programs.Of(container.Kind))} start {container.Id}",
        StartMps => "nvidia-cuda-mps-control -d",
        SwitchPersistence { On: true, Function: var function } => $"nvidia-smi -i {function} -pm 1",
        _ => null,
    };

    /// <summary>Whether it is this that the step starts.</summary>
    public static bool Starts(Step step, Stopped stopped) => step switch
    {
        StartUnit { Unit: var unit } => stopped.Unit == unit,
        StartTarget { Unit: var unit, Bound: var bound } => stopped.Unit is { } known && (known == unit || bound.Contains(known)),
        StartContainer { Container: var container } => stopped.Container == container,
        StartMps { Daemon: var daemon } => stopped.Mps == daemon,
        SwitchPersistence { On: true, Function: var function } => stopped.Persistence == function,
        _ => false,
    };

    /// <summary>What of a record's stopped things these steps would have started.</summary>
    public static ImmutableArray<Stopped> Of(Home home, ImmutableArray<Step> left) => [.. home.Stopped.Where(s => left.Any(step => Starts(step, s)))];

    /// <summary>The record of a GPU that is at home: nothing of it counts any more but what was not started.</summary>
    public static Home Rest(Home home, ImmutableArray<Stopped> left) => home with
    {
        Functions = [.. home.Functions.Select(f => new FunctionHome(f.Function, f.Owner))],
        Modules = [],
        Nodes = [],
        Console = null,
        Stopped = left,
        Returned = true,
    };
}
