using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Steps;

namespace GpuHandoff.Plans;

/// <summary>Steps that belong together, under one word of the log.</summary>
public sealed record Phase(string Name, ImmutableArray<Step> Steps);

/// <summary>What to do, as pure data: printable, storable, explainable. The unit of a step is the unit of reversion.</summary>
public sealed record Plan(Target Target, ImmutableArray<PciAddress> Gpus, string Summary, ImmutableArray<Phase> Phases)
{
    /// <summary>The boot that it was made in. In another one nothing of it holds.</summary>
    public string BootId { get; init; } = "";

    /// <summary>What the reader should know, and what keeps no step from running.</summary>
    public ImmutableArray<string> Notes { get; init; } = [];

    /// <summary>To be written down before the first step.</summary>
    public ImmutableArray<Home> Keep { get; init; } = [];

    /// <summary>Cards whose record is of no more use after the last step.</summary>
    public ImmutableArray<PciAddress> Forget { get; init; } = [];

    /// <summary>Records that stay in use, as they are from the last step on.</summary>
    public ImmutableArray<Home> After { get; init; } = [];

    public IEnumerable<Step> Steps() => Phases.SelectMany(p => p.Steps);

    public bool IsEmpty() => Phases is [];
}
