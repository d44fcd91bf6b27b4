using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace GpuHandoff.Machines;

/// <summary>Where a module is in its life. A driver may be no module at all: then it is built in.</summary>
public enum ModuleState
{
    [JsonStringEnumMemberName("absent")]
    Absent,
    [JsonStringEnumMemberName("loading")]
    Loading,
    [JsonStringEnumMemberName("loaded")]
    Loaded,
    [JsonStringEnumMemberName("unloading")]
    Unloading,
    [JsonStringEnumMemberName("built-in")]
    BuiltIn,
}

/// <summary>A kernel module by the name that /sys/module has for it: with underscores, whatever its file is called.</summary>
/// <param name="RefCount">Users and dependants together; null where this kernel does not count (it cannot unload).</param>
/// <param name="Holders">The modules that depend on it.</param>
public sealed record KernelModule(string Name, ModuleState State, int? RefCount, ImmutableArray<string> Holders)
{
    /// <summary>The parameters that a reload must be given again, as <c>name=value</c>.</summary>
    public ImmutableArray<string> Parameters { get; init; } = [];

    public bool IsThere() => State is ModuleState.Loaded or ModuleState.BuiltIn;

    /// <summary>Open files and kernel users: what counts and is no dependant.</summary>
    public int Users() => Math.Max(0, (RefCount ?? 0) - Holders.Length);
}
