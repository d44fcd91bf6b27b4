using System.Collections.Immutable;
using System.Text.Json.Serialization;
using GpuHandoff.Guests;
using GpuHandoff.Machines;

namespace GpuHandoff.Goals;

/// <summary>Where a GPU is to go.</summary>
public enum Target
{
    /// <summary>To a VM: every function on vfio-pci, and kept there.</summary>
    [JsonStringEnumMemberName("vfio")]
    Vfio,

    /// <summary>Back to the host: every function on the driver that it had.</summary>
    [JsonStringEnumMemberName("host")]
    Host,
}

/// <summary>What is wanted, of which cards.</summary>
public sealed record Goal(Target Target, ImmutableArray<Gpu> Gpus)
{
    /// <summary>The VM that they are for, or come back from; null: a person asked.</summary>
    public Guest? For { get; init; }
}
