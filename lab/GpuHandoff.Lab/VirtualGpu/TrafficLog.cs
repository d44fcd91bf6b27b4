using System.Diagnostics;

namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>All that happened to one function since the VM began: kept for the tests, and written down as it happens.</summary>
public sealed class TrafficLog : IDisposable
{
    readonly Lock gate = new();
    readonly List<Traffic> entries = [];
    readonly Stopwatch clock = Stopwatch.StartNew();
    readonly StreamWriter file;

    public TrafficLog(string path) => file = new(path) { AutoFlush = true };

    /// <summary>A copy of what was seen so far; <paramref name="from"/> skips what a test saw earlier.</summary>
    public IReadOnlyList<Traffic> Entries(int from = 0)
    {
        lock (gate)
            return entries[from..];
    }

    public int Count
    {
        get
        {
            lock (gate)
                return entries.Count;
        }
    }

    /// <summary>The resets that the guest's kernel made; QEMU's own at power-on is left out.</summary>
    public IReadOnlyList<Traffic> Resets(int from = 0) =>
        [.. Entries(from).Where(entry => entry is { Kind: TrafficKind.Reset, Place: not "machine" })];

    internal void Add(TrafficKind kind, string place, ulong value = 0)
    {
        lock (gate)
        {
            var entry = new Traffic(clock.Elapsed, kind, place, value);
            entries.Add(entry);
            file.WriteLine(entry);
        }
    }

    public void Dispose() => file.Dispose();
}
