using System.Collections.Immutable;
using GpuHandoff.Guests;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;

namespace GpuHandoff.Simulation;

/// <summary>A ledger that forgets with its owner: for the demo, for recorded machines, and for tests, which can read it.</summary>
/// <remarks>Its diaries are the very text that lies on a disk, and are read back as that is.</remarks>
public sealed class MemoryLedger : ILedger
{
    readonly SortedDictionary<PciAddress, Home> homes = [];
    readonly SortedDictionary<PciAddress, Wedge> wedges = [];
    readonly SortedDictionary<PciAddress, Lease> leases = [];
    readonly SortedDictionary<PciAddress, DamagedLease> damaged = [];
    readonly HashSet<string> known = [];
    readonly HashSet<(PciAddress Gpu, string What)> told = [];
    readonly SortedDictionary<string, string> diaries = new(StringComparer.Ordinal);

    /// <summary>The text of each card's last run.</summary>
    public IReadOnlyDictionary<string, string> Diaries => diaries;

    /// <summary>Told before anything is written, in words: to fail, or to end the writer.</summary>
    public Action<string>? Before { get; set; }

    public ImmutableArray<Home> Homes() => [.. homes.Values];

    public void Keep(Home home)
    {
        Before?.Invoke($"keep {home.Gpu}");
        homes[home.Gpu] = home;
    }

    public void Forget(PciAddress gpu)
    {
        Before?.Invoke($"forget {gpu}");
        homes.Remove(gpu);
    }

    /// <summary>What a look at the leases ends with, as in a folder that others may write; null: they can be read.</summary>
    public LedgerRefused? Damage { get; set; }

    public ImmutableArray<Lease> Leases() => Damage is { } damage ? throw damage : [.. leases.Values];

    /// <summary>The record of a card's lease is no longer one.</summary>
    public void Spoil(PciAddress gpu)
    {
        leases.Remove(gpu);
        damaged[gpu] = new(gpu, $"lease-{gpu}.json, line 1: it is empty", "look at it, and remove it");
    }

    /// <summary>The host has come up anew since all of this was written.</summary>
    public void Ages()
    {
        foreach (var record in damaged.Values.ToList())
            damaged[record.Gpu!.Value] = record with { IsOfEarlierBoot = true };
    }

    public ImmutableArray<DamagedLease> Damaged() => [.. damaged.Values];

    public bool IsKnown(DamagedLease damaged) => known.Contains(damaged.What);

    public void Know(DamagedLease damaged) => known.Add(damaged.What);

    public bool IsTold(PciAddress gpu, string what) => told.Contains((gpu, what));

    public void KeepTold(PciAddress gpu, string what) => told.Add((gpu, what));

    public void Lend(Lease lease)
    {
        Before?.Invoke($"lend {lease.Gpu}");
        damaged.Remove(lease.Gpu);
        leases[lease.Gpu] = lease;
    }

    public void EndLease(PciAddress gpu)
    {
        Before?.Invoke($"end the lease of {gpu}");
        leases.Remove(gpu);
        damaged.Remove(gpu);
        told.RemoveWhere(t => t.Gpu == gpu);
    }

    public IJournal Open(Plan plan)
    {
        var diary = new Diary(this, $"journal-{plan.Gpus[0]}");
        Before?.Invoke($"open {diary.Name}");
        diaries[diary.Name] = JournalText.Opens(plan) + "\n";
        return diary;
    }

    public ImmutableArray<Unfinished> Unfinished() =>
        [.. diaries.Select(diary => JournalText.Read(diary.Value, diary.Key)).OfType<Unfinished>()];

    public void Close(Unfinished run, string how) => Add(run.Source, JournalText.Closes(how));

    public void Stick(Unfinished run) => Add(run.Source, JournalText.Sticks);

    public ImmutableArray<Wedge> Wedges() => [.. wedges.Values];

    public void Mark(Wedge wedge)
    {
        Before?.Invoke($"mark {wedge.Gpu}");
        wedges[wedge.Gpu] = wedge;
    }

    public void Unmark(PciAddress gpu)
    {
        Before?.Invoke($"unmark {gpu}");
        wedges.Remove(gpu);
    }

    void Add(string diary, string line)
    {
        Before?.Invoke($"{diary}: {line}");
        diaries[diary] += line + "\n";
    }

    sealed class Diary(MemoryLedger ledger, string name) : IJournal
    {
        public string Name => name;

        public void Begins(int step) => ledger.Add(name, JournalText.Begins(step));

        public void Ends(int step) => ledger.Add(name, JournalText.Ends(step));

        public void Undone(int step) => ledger.Add(name, JournalText.Undone(step));

        public void Left(int step) => ledger.Add(name, JournalText.Left(step));

        public void Closes(Outcome outcome) => ledger.Add(name, JournalText.Closes(outcome));

        public void Dispose()
        {
        }
    }
}
