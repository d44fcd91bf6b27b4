using System.Collections.Immutable;

namespace GpuHandoff.Runs;

/// <summary>
/// What one process has changed on the machine so far: every step that it began, forward or back, and every rescan. Whether
/// it can be said that nothing was changed is asked here, and nowhere else; our own records in the ledger do not count.
/// </summary>
public sealed class Footprint
{
    readonly List<string> _changes = [];

    /// <summary>How many there were: what came since an earlier number is news.</summary>
    public int Count => _changes.Count;

    /// <summary>In words, oldest first.</summary>
    public ImmutableArray<string> Changes() => [.. _changes];

    /// <summary>To be called before the first write of it: a call that does not come back has changed something, too.</summary>
    public void Add(string change) => _changes.Add(change);

    /// <summary>The state of the machine in words, for a request that was refused or could not even be looked at.</summary>
    public string State() => _changes switch
    {
        [] => "nothing was changed",
        [var only] => $"this changed nothing; what the same run had to do before it stays done: {only}",
        _ => $"this changed nothing; what the same run had to do before it stays done ({_changes.Count} changes, the last: {_changes[^1]})",
    };
}
