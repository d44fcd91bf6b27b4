using System.Collections.Immutable;

namespace GpuHandoff.Machines;

/// <summary>More users of a driver's module than processes show.</summary>
/// <param name="Counted">By /proc/modules, dependent modules apart.</param>
/// <param name="Shown">Explained by processes, or by what holds nothing up.</param>
public sealed record HiddenUse(string Driver, string Module, int Counted, int Shown)
{
    /// <summary>Processes that ALSA itself names as owners of a substream of these GPUs: their descriptors need not be in any table.</summary>
    public ImmutableArray<int> Owners { get; init; } = [];

    public override string ToString() => (Owners is [] ? "" : $"ALSA names {(Owners is [var only] ? $"process {only}" : $"processes {string.Join(", ", Owners)}")} as owner of a substream; ")
        + $"module {Module} has {Counted} users that are no modules, and processes explain {Shown} of them: the others are hidden descriptors (in flight through a socket, in io_uring) or kernel users";
}
