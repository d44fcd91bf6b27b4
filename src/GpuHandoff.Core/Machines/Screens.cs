using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace GpuHandoff.Machines;

/// <summary>A frame buffer (/sys/class/graphics/fbN) and the PCI function whose memory it shows; null where nobody can tell.</summary>
/// <param name="Driver">What the kernel calls it: <c>nvidia-drmdrmfb</c>, <c>EFI VGA</c>. Numbers change, names stay.</param>
public sealed record FrameBuffer(string Name, string Driver, PciAddress? Function)
{
    /// <summary>The firmware's platform device behind it; null: a driver of the card itself made it.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Firmware { get; init; }
}

/// <summary>
/// The picture that the firmware left, as the kernel offers it to its simplest drivers (drivers/firmware/sysfb.c). A native
/// driver of the card and vfio-pci take it away for good: nothing but a boot makes another.
/// </summary>
/// <param name="Device">The platform device: <c>efi-framebuffer.0</c>.</param>
/// <param name="Driver">Its driver: <c>efi-framebuffer</c>, <c>simple-framebuffer</c>, <c>vesa-framebuffer</c>.</param>
/// <param name="Function">The card whose memory it is in; null where nobody can tell.</param>
/// <param name="Bound">Whether the driver has it now.</param>
public sealed record FirmwareDisplay(string Device, string Driver, PciAddress? Function, bool Bound = true);

/// <summary>A DRM card with its nodes (card0, renderD128) and the PCI function behind it.</summary>
public sealed record DrmCard(PciAddress Function, ImmutableArray<string> Nodes);

/// <summary>A console driver of the kernel's terminals (/sys/class/vtconsole/vtconN).</summary>
/// <param name="Name">In the kernel's words: <c>(M) frame buffer device</c>. Numbers change, names stay.</param>
public sealed record VtConsole(string Number, string Name, bool Bound)
{
    /// <summary>drivers/video/fbdev/core/fbcon.c:fbcon_startup</summary>
    public bool IsOnFrameBuffers() => Name.Contains("frame buffer device", StringComparison.Ordinal);

    /// <summary>drivers/video/console/vgacon.c:vgacon_startup: VGA+, *VGA, EGA …; the other text console of a PC is the dummy.</summary>
    public bool IsVgaText() => Name.Contains("VGA", StringComparison.Ordinal) || Name.Contains("EGA", StringComparison.Ordinal);

    /// <summary>
    /// The kernel's own since boot, and no module's. Without one the kernel binds no console driver by hand: its bind file
    /// reports success and does nothing (drivers/tty/vt/vt.c:vt_bind, show_name).
    /// </summary>
    public bool IsTheSystems() => Name.StartsWith("(S)", StringComparison.Ordinal);
}
