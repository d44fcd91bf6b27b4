using System.Collections.Immutable;
using GpuHandoff.Checks;

namespace GpuHandoff.Plans;

/// <summary>What the planner answers.</summary>
public abstract record Answer
{
    public sealed record Planned(Plan Plan) : Answer;

    /// <summary>Why not: at least one finding. Nothing was written.</summary>
    public sealed record Refused(string What, ImmutableArray<Finding> Findings) : Answer;
}
