using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace GpuHandoff.Machines;

/// <summary>The ways to reset a card, from the gentlest to the one that takes it off the bus.</summary>
public enum Rung
{
    /// <summary>The function alone, by whatever method the kernel has for it: FLR comes first in its list.</summary>
    [JsonStringEnumMemberName("function")]
    Function,

    /// <summary>The bus below the bridge: all functions of the slot together.</summary>
    [JsonStringEnumMemberName("bus")]
    Bus,

    /// <summary>All functions of the slot off the bus, and the bus enumerated anew.</summary>
    [JsonStringEnumMemberName("rescan")]
    Rescan,
}

/// <summary>The rungs that a card has and the policy allows, in the order in which they would be tried.</summary>
/// <param name="Slot">All functions of the slot, bridges left out.</param>
/// <param name="Methods">What the kernel calls its ways to reset the card's display function.</param>
public sealed record Ladder(
    ImmutableArray<Rung> Rungs, ImmutableArray<PciAddress> Slot, PciAddress? Bridge, ImmutableArray<string> Methods)
{
    public string Say(Rung rung) => rung switch
    {
        Rung.Function => $"a reset of the function ({string.Join(' ', Methods)})",
        Rung.Bus => $"a reset of the bus below {Bridge}",
        _ => "removal from the bus and a rescan",
    };
}
