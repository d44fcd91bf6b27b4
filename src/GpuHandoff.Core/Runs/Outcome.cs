using System.Collections.Immutable;
using GpuHandoff.Kernel;
using GpuHandoff.Steps;

namespace GpuHandoff.Runs;

/// <summary>A step that failed, and the evidence.</summary>
public sealed record Failure(Step Step, string Reason)
{
    /// <summary>What to do about it; null: the kernel log may tell.</summary>
    public string? Hint { get; init; }
}

/// <summary>How a run ended. There are no two outcomes at once.</summary>
public abstract record Outcome
{
    /// <summary>Everything is as wanted; <paramref name="Changes"/> steps had something to do.</summary>
    public sealed record Done(int Changes) : Outcome
    {
        /// <summary>What did not come back though the card is where it shall be: a console, a service. Each with its reason.</summary>
        public ImmutableArray<string> Warnings { get; init; } = [];

        /// <summary>What was to be started again and was not tried, or did not answer: a later run starts it.</summary>
        public ImmutableArray<Step> Left { get; init; } = [];
    }

    /// <summary>A step failed or the run was interrupted, and everything is as it was before.</summary>
    public sealed record RolledBack(string What, Failure? Cause) : Outcome;

    /// <summary>A person is needed: a call that does not return, or an undo that failed.</summary>
    /// <param name="Silent">Whether the kernel still has a call of ours.</param>
    /// <param name="NotUndone">What stayed changed, newest first.</param>
    public sealed record Stuck(string What, bool Silent, ImmutableArray<Failure> Failures, ImmutableArray<Step> NotUndone) : Outcome
    {
        /// <summary>The call that the kernel still has.</summary>
        public KernelSilent? Call { get; init; }
    }
}
