using System.Collections.Immutable;
using GpuHandoff.Machines;
using GpuHandoff.Plans;

namespace GpuHandoff.Runs;

/// <summary>What must survive us: where each card comes from, and how far a run got. On disk before it counts.</summary>
public interface ILedger
{
    /// <summary>Every record, of any boot.</summary>
    ImmutableArray<Home> Homes();

    void Keep(Home home);

    void Forget(PciAddress gpu);

    IJournal Open(Plan plan);
}

/// <summary>One run's diary: what is about to be done is written before it is done.</summary>
public interface IJournal : IDisposable
{
    void Begins(int step);

    void Ends(int step);

    void Undone(int step);

    void Closes(Outcome outcome);
}
