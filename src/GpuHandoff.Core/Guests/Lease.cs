using System.Collections.Immutable;
using System.Text.Json.Serialization;
using GpuHandoff.Machines;

namespace GpuHandoff.Guests;

/// <summary>A process that cannot be mistaken for a later one with its PID.</summary>
/// <param name="Started">When it began, in clock ticks since boot (/proc/PID/stat, field 22).</param>
public sealed record QemuProcess(int Pid, ulong Started);

/// <summary>The VM manager's process that asked for a GPU, as one that cannot be mistaken for a later one with its PID.</summary>
/// <param name="Started">When it began, in clock ticks since boot (/proc/PID/stat, field 22).</param>
public sealed record ManagerProcess(int Pid, ulong Started);

/// <summary>Why a VM that has ended will be back, and how long that is believed.</summary>
/// <param name="Why">For whoever is refused meanwhile: <c>it is being rebooted</c>.</param>
/// <param name="Until">Time since boot: one that is not back by then is gone.</param>
public sealed record ExpectedBack(string Why, TimeSpan Until);

/// <summary>
/// A GPU that is lent to a VM: on disk before the first step of the hand-over, gone after the last one of the way back.
/// Whatever happens in between, it tells whose the card is, and a hook that comes late what was taken for it.
/// </summary>
/// <param name="Functions">What left the host for the VM, with the owner that each had before.</param>
/// <param name="Since">Time since boot (CLOCK_BOOTTIME): a lease ends with the boot as every binding does.</param>
public sealed record Lease(string BootId, PciAddress Gpu, Guest Guest, ImmutableArray<FunctionHome> Functions, TimeSpan Since)
{
    public const int Newest = 1;

    /// <summary>The record's format, so that a later program can tell what it reads.</summary>
    public int Version { get; init; } = Newest;

    /// <summary>
    /// When the hand-over was done (CLOCK_BOOTTIME); null: it is at work, or died, or an older program made it. Only from here
    /// on is it the manager's turn.
    /// </summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public TimeSpan? Ready { get; init; }

    /// <summary>Known from the moment on when the VM runs.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public QemuProcess? Qemu { get; init; }

    /// <summary>
    /// Who asked for it, where that process goes on with the start and shows no other sign of it; null: not known, or the manager
    /// has said that the start has ended.
    /// </summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public ManagerProcess? StartedBy { get; init; }

    /// <summary>The VM was off and was started for its backup: at the end of that it is off again.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool ForBackup { get; init; }

    /// <summary>Its VM has ended and is started anew: the card waits for it. A new start is a new lease, which has no such note.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public ExpectedBack? ExpectedBack { get; init; }

    /// <summary>What was pinned where when the VM began to run, in words; empty: nothing.</summary>
    public ImmutableArray<string> Pinned { get; init; } = [];

    /// <summary>How often it was brought home in vain, with nobody there to see it.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public int Failures { get; init; }

    /// <summary>Why it did not come home the last time, as it was told: the timer tells it once, and not each time it looks.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Trouble { get; init; }

    /// <summary>After so many tries a person has to look: each one binds, unbinds and perhaps resets the card.</summary>
    public const int MostTries = 3;

    public bool IsGivenUp() => Failures >= MostTries;

    /// <summary>The same loan: a VM that was started anew has another one.</summary>
    public bool IsSameAs(Lease? other) => other is not null && BootId == other.BootId && Gpu == other.Gpu && Guest == other.Guest && Since == other.Since;
}

/// <summary>How it stands with a VM that a GPU is lent to.</summary>
public enum Tenancy
{
    /// <summary>Its manager is at work on it: it starts or stops.</summary>
    [JsonStringEnumMemberName("in-motion")]
    InMotion,

    /// <summary>Its QEMU lives, or somebody has the card's IOMMU group open.</summary>
    [JsonStringEnumMemberName("running")]
    Running,

    /// <summary>Nobody has the card, and nobody is about to.</summary>
    [JsonStringEnumMemberName("gone")]
    Gone,
}

/// <summary>A lease and what the host says of its VM.</summary>
/// <param name="Evidence">Why we think so: <c>QEMU runs as process 4711</c>.</param>
public sealed record Loan(Lease Lease, Tenancy Tenancy, string Evidence)
{
    public override string ToString() => $"{Lease.Guest}: {Evidence}";
}
