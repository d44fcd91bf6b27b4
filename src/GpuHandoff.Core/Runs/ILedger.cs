using System.Collections.Immutable;
using GpuHandoff.Guests;
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

    /// <summary>Every lease that can be read, of any boot. One that cannot be must not hinder what is done with other cards.</summary>
    ImmutableArray<Lease> Leases();

    ImmutableArray<DamagedLease> Damaged();

    /// <summary>Whether somebody who comes every few seconds has told of it in this boot.</summary>
    bool IsKnown(DamagedLease damaged);

    void Know(DamagedLease damaged);

    /// <summary>Whether this was told of the card, by somebody who comes every few seconds, since its last lease ended.</summary>
    bool IsTold(PciAddress gpu, string what);

    /// <summary>Remembered for this boot, and where a full disk does not matter.</summary>
    void KeepTold(PciAddress gpu, string what);

    void Lend(Lease lease);

    void EndLease(PciAddress gpu);

    /// <summary>A diary for this plan, in the place of the last one for its first card.</summary>
    IJournal Open(Plan plan);

    /// <summary>Runs that never wrote their end, of any boot: killed, crashed, or at work now.</summary>
    ImmutableArray<Unfinished> Unfinished();

    /// <summary>Ends another run's diary: what there was to do has been done.</summary>
    void Close(Unfinished run, string how);

    /// <summary>Notes in another run's diary that its end was tried in vain.</summary>
    void Stick(Unfinished run);

    /// <summary>Every mark, of any boot.</summary>
    ImmutableArray<Wedge> Wedges();

    void Mark(Wedge wedge);

    void Unmark(PciAddress gpu);
}

/// <summary>One run's diary: what is about to be done is written before it is done.</summary>
public interface IJournal : IDisposable
{
    void Begins(int step);

    void Ends(int step);

    void Undone(int step);

    /// <summary>A step that starts something again was left, for a later run.</summary>
    void Left(int step);

    void Closes(Outcome outcome);
}

/// <summary>A run that never wrote its end.</summary>
/// <param name="Begun">The numbers of the steps that were begun and not undone, oldest first.</param>
/// <param name="Source">Where its diary is, for a person and for closing it.</param>
/// <param name="Stuck">Its end was tried in vain so often that only a person should try again.</param>
public sealed record Unfinished(Plan Plan, ImmutableArray<int> Begun, string Source, bool Stuck = false);
