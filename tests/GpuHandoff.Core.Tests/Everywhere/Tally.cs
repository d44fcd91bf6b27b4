using System.Collections.Concurrent;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>How runs ended, by what went wrong in them.</summary>
sealed class Tally
{
    readonly ConcurrentDictionary<(string Mishap, string Outcome), int> _counts = [];

    int _runs;

    public int Runs => _runs;

    public void Add(Errand errand, MishapKind[] met, string outcome)
    {
        Interlocked.Increment(ref _runs);
        var mishap = errand.Mishaps.Any(m => m.Kind is MishapKind.DieBefore or MishapKind.DieAfter) && outcome == "killed"
            ? "Killed"
            : met switch { [] => "Nothing", [var one] => one.ToString(), _ => "Several" };
        _counts.AddOrUpdate((mishap, outcome), 1, static (_, count) => count + 1);
    }

    /// <summary>Every pair with its count, in ordinal order.</summary>
    public IEnumerable<(string Mishap, string Outcome, int Count)> Counts() =>
        _counts.Select(c => (c.Key.Mishap, c.Key.Outcome, c.Value)).OrderBy(c => c.Mishap, StringComparer.Ordinal).ThenBy(c => c.Outcome, StringComparer.Ordinal);

    public int Of(string outcome) => _counts.Where(c => c.Key.Outcome.StartsWith(outcome, StringComparison.Ordinal)).Sum(c => c.Value);

    public override string ToString() => string.Join('\n', Counts().Select(c => $"  {c.Mishap,-18} {c.Outcome,-14} {c.Count,8}"));
}
