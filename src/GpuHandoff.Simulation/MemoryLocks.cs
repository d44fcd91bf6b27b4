using GpuHandoff.Runs;

namespace GpuHandoff.Simulation;

/// <summary>The locks of a simulated host, for one process of several (<paramref name="holder"/>: <c>4211 gpu-handoff</c>).</summary>
public sealed class MemoryLocks(MemoryLocks.Table table, string holder) : ILocks
{
    public MemoryLocks() : this(new(), "4211 gpu-handoff")
    {
    }

    public ILock? Try(string name, bool shared)
    {
        if (table.Held.Any(other => other.Name == name && !(shared && other.Shared)))
            return null;
        var held = new Held(table, name, shared, holder);
        table.Held.Add(held);
        return held;
    }

    public string Holder(string name) =>
        string.Join(", ", table.Held.Where(held => held.Name == name).Select(held => held.Holder).Distinct()) is { Length: > 0 } all ? all : "another run";

    /// <summary>What all processes of the host hold.</summary>
    public sealed class Table
    {
        internal List<Held> Held { get; } = [];

        /// <summary>The kernel drops what a process held when it ends.</summary>
        public void Drop(string holder) => Held.RemoveAll(held => held.Holder == holder);

        public bool IsFree() => Held.Count == 0;

        /// <summary>The locks that a process holds, by their names.</summary>
        public IReadOnlyList<string> NamesOf(string holder) => [.. Held.Where(held => held.Holder == holder).Select(held => held.Name)];
    }

    internal sealed class Held(Table table, string name, bool shared, string holder) : ILock
    {
        public string Name => name;
        public string Holder => holder;
        public bool Shared { get; private set; } = shared;

        public bool Share() => Shared = true;

        public void Dispose() => table.Held.Remove(this);
    }
}
