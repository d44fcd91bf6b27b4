using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace GpuHandoff.Machines;

/// <summary>One function of a slot as the kernel shows it in sysfs.</summary>
public sealed record PciFunction(PciAddress Address, PciId Id, PciClass Class, Owner Owner)
{
    public string? Name { get; init; }

    /// <summary>Null: none, so the function cannot be given to a VM.</summary>
    public int? Group { get; init; }

    /// <summary>What the kernel offers, in its order. A name in it is not yet a promise (pci.c:pci_reset_fn_methods).</summary>
    public ImmutableArray<string> ResetMethods { get; init; } = [];

    /// <summary>D0, D1, D2, D3hot, D3cold, unknown or error; null where the kernel does not tell.</summary>
    public string? PowerState { get; init; }

    /// <summary>What the kernel may do to it when it idles; null where it does not tell.</summary>
    public Power? Power { get; init; }

    public ImmutableArray<Bar> Bars { get; init; } = [];

    /// <summary>The sizes that BAR 1 can be given (resizable BAR); empty: it cannot be resized.</summary>
    public ImmutableArray<ulong> Bar1Sizes { get; init; } = [];

    /// <summary>BAR 1: on NVIDIA's cards the window on their memory. 0: none.</summary>
    public ulong Bar1() => Bars.FirstOrDefault(b => b.Index == 1)?.Size ?? 0;

    /// <summary>Whether firmware booted on it; null where the kernel does not tell.</summary>
    public bool? BootVga { get; init; }

    /// <summary>Interrupt vectors that its driver has taken: nvidia takes them at first open and frees them at last close.</summary>
    /// <remarks>nvidia/nv.c:nv_start_device, nv_stop_device.</remarks>
    public int Interrupts { get; init; }

    /// <summary>The DRM, frame buffer, ALSA, i2c and vfio nodes of this function. Who has one open keeps its driver.</summary>
    public ImmutableArray<NamedNode> Nodes { get; init; } = [];

    /// <summary>
    /// Nodes that the kernel takes from whoever has them open, the jacks of a sound card: no reason to wait, and to stop nobody.
    /// </summary>
    /// <remarks>drivers/input/evdev.c:evdev_disconnect hangs their readers up.</remarks>
    public ImmutableArray<NamedNode> YieldingNodes { get; init; } = [];

    /// <summary>What is plugged into this USB controller, hubs left out: <c>3-1 Logitech USB Receiver</c>.</summary>
    public ImmutableArray<string> Plugged { get; init; } = [];

    /// <summary>The kernel still lists it, and it answers no more. False also where that was not asked.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool IsLost { get; init; }

    public bool IsOnVfio() => Owner.Driver == Owner.Vfio;

    public override string ToString() => $"{Address} ({Name ?? $"{Id} {Class.Say()}"})";
}
