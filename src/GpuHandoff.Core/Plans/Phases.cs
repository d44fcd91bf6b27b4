using System.Collections.Immutable;
using GpuHandoff.Steps;

namespace GpuHandoff.Plans;

/// <summary>Collects steps under the word of their phase, in the order in which they come.</summary>
sealed class Phases
{
    readonly List<(string Name, List<Step> Steps)> _phases = [];

    public void Add(string phase, Step step)
    {
        if (_phases is not [.., { Name: var last }] || last != phase)
            _phases.Add((phase, []));
        _phases[^1].Steps.Add(step);
    }

    public bool IsEmpty() => _phases.Count == 0;

    public bool Unloads(string module) => _phases.SelectMany(p => p.Steps).OfType<UnloadModule>().Any(s => s.Module == module);

    public ImmutableArray<Phase> Build() => [.. _phases.Select(p => new Phase(p.Name, [.. p.Steps]))];
}
