using System.Collections.Immutable;
using GpuHandoff.Guests;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Steps;

namespace GpuHandoff.Core.Tests;

/// <summary>Remembers what a run told.</summary>
sealed class Memo : IWitness
{
    readonly List<string> _lines = [];

    public IReadOnlyList<string> Lines => _lines;

    /// <summary>For whom a watch was left, with the card.</summary>
    public IList<string> Watched { get; } = [];

    public void Lends(ImmutableArray<Lease> leases)
    {
        foreach (var lease in leases)
            Watched.Add($"{lease.Gpu} {lease.Guest.Id}");
    }

    public void Waits(string what) => _lines.Add($"waits {what}");

    public void Tells(string what) => _lines.Add($"tells {what}");

    public void Begins(Plan plan) => _lines.Add($"plan {plan.Summary}");

    public void PhaseBegins(Phase phase) => _lines.Add($"phase {phase.Name}");

    public void StepBegins(Step step) => _lines.Add($"begins {step.Say()}");

    public void StepEnds(Step step, TimeSpan? took) => _lines.Add($"{(took is null ? "was so" : "ends")} {step.Say()}");

    public void StepFails(Step step, string reason) => _lines.Add($"fails {step.Say()}: {reason}");

    public void PhaseEnds(Phase phase, TimeSpan took) => _lines.Add($"phase {phase.Name} ends");

    public void Undoes(Step step) => _lines.Add($"undoes {step.Say()}");

    public void Warns(string what) => _lines.Add($"warns {what}");

    public override string ToString() => string.Join('\n', _lines);
}
