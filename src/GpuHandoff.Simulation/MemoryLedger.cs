using System.Collections.Immutable;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;

namespace GpuHandoff.Simulation;

/// <summary>A ledger that forgets with its owner: for the demo, for recorded machines, and for tests, which can read it.</summary>
public sealed class MemoryLedger : ILedger
{
    readonly Dictionary<PciAddress, Home> _homes = [];

    /// <summary>Every line of every run's journal, in order.</summary>
    public IList<string> Journal { get; } = [];

    public ImmutableArray<Home> Homes() => [.. _homes.Values];

    public void Keep(Home home) => _homes[home.Gpu] = home;

    public void Forget(PciAddress gpu) => _homes.Remove(gpu);

    public IJournal Open(Plan plan)
    {
        Journal.Add($"opens {plan.Target}");
        return new Diary(Journal);
    }

    sealed class Diary(IList<string> lines) : IJournal
    {
        public void Begins(int step) => lines.Add($"begins {step}");

        public void Ends(int step) => lines.Add($"ends {step}");

        public void Undone(int step) => lines.Add($"undone {step}");

        public void Closes(Outcome outcome) => lines.Add($"closes {outcome.GetType().Name}");

        public void Dispose()
        {
        }
    }
}
