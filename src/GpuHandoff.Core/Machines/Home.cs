using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace GpuHandoff.Machines;

/// <summary>What a GPU's function was before the hand-over.</summary>
public sealed record FunctionHome(PciAddress Function, Owner Owner)
{
    /// <summary>Its power settings; null where nobody wrote them down.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public Power? Power { get; init; }

    /// <summary>The size of its second memory window, where the hand-over changed it.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public ulong? Bar1 { get; init; }
}

/// <summary>A module that was loaded before the hand-over, with the parameters that it ran with.</summary>
public sealed record ModuleHome(string Name, ImmutableArray<string> Parameters);

/// <summary>The host's text console as it was on a card: what has to be seen again when the card is back.</summary>
/// <param name="Vt">The console driver that had the terminals, in the kernel's words: <c>(M) frame buffer device</c>.</param>
/// <param name="FrameBuffers">The names of the card's frame buffers: <c>nvidia-drmdrmfb</c>. Numbers change, names stay.</param>
public sealed record ConsoleHome(string Vt, ImmutableArray<string> FrameBuffers)
{
    /// <summary>The firmware's displays that showed it; none: the card's own driver did.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public ImmutableArray<FirmwareDisplay> Firmware { get; init; }

    /// <summary>The same, for who does not mind an old record.</summary>
    public ImmutableArray<FirmwareDisplay> OfFirmware() => Firmware.IsDefault ? [] : Firmware;

    /// <summary>Equality of records with arrays is that of references.</summary>
    public bool IsSameAs(ConsoleHome? other) => other is not null && Vt == other.Vt
        && FrameBuffers.SequenceEqual(other.FrameBuffers) && OfFirmware().SequenceEqual(other.OfFirmware());
}

/// <summary>
/// Where a GPU comes from: kept on disk before the first write of a hand-over and forgotten after the last one of its
/// return. Good for one boot: the next one binds everything anew.
/// </summary>
public sealed record Home(
    string BootId,
    PciAddress Gpu,
    ImmutableArray<FunctionHome> Functions,
    ImmutableArray<ModuleHome> Modules,
    ImmutableArray<NamedNode> Nodes)
{
    public const int Newest = 3;

    /// <summary>The record's format, so that a later program can tell what it reads.</summary>
    public int Version { get; init; } = Newest;

    /// <summary>What the hand-over stopped, in its order: the return starts it again, the last one first. New in version 2.</summary>
    public ImmutableArray<Stopped> Stopped { get; init; } = [];

    /// <summary>
    /// The GPU has come home, and what <see cref="Stopped"/> names is left to be started: nothing else of the record counts.
    /// </summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool Returned { get; init; }

    /// <summary>NVIDIA's name for the card, which nobody can ask while a VM has it. New in version 3.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Uuid { get; init; }

    /// <summary>N of its /dev/nvidiaN while nvidia had it; null: it was on another driver, or an older version wrote the record.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public int? Minor { get; init; }

    /// <summary>The host's text console, where it was on this card. New in version 3.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public ConsoleHome? Console { get; init; }

    public Owner? Of(PciAddress function) => Find(function)?.Owner;

    public FunctionHome? Find(PciAddress function) => Functions.FirstOrDefault(f => f.Function == function);
}
