using System.Collections.Immutable;
using GpuHandoff.Guests;
using GpuHandoff.Plans;
using GpuHandoff.Steps;

namespace GpuHandoff.Runs;

/// <summary>Whoever watches a run: a terminal, a task log, a test. It may not disturb.</summary>
public interface IWitness
{
    /// <summary>Something has to end first: another run, a VM.</summary>
    void Waits(string what);

    /// <summary>Something worth a line: what was found out, what is left as it is.</summary>
    void Tells(string what)
    {
    }

    void Begins(Plan plan);

    /// <summary>Cards are lent to a VM from here on, and nothing has been done yet.</summary>
    void Lends(ImmutableArray<Lease> leases)
    {
    }

    void PhaseBegins(Phase phase);

    void StepBegins(Step step);

    /// <summary>A step is at its end. <paramref name="took"/> is null where there was nothing to do.</summary>
    void StepEnds(Step step, TimeSpan? took);

    void StepFails(Step step, string reason);

    void PhaseEnds(Phase phase, TimeSpan took);

    void Undoes(Step step);

    /// <summary>Something went wrong that changes no outcome.</summary>
    void Warns(string what);
}
