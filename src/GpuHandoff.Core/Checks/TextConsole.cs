using System.Collections.Immutable;
using GpuHandoff.Machines;

namespace GpuHandoff.Checks;

/// <summary>Where the host's text console is, and what becomes of it when cards leave. Pure.</summary>
static class TextConsole
{
    /// <summary>fbcon by its name, as a module's or as a part of the kernel: it says the same of itself (vt.c:show_name).</summary>
    public const string FrameBufferName = "(M) frame buffer device";

    /// <summary>fbcon with the terminals. It is one driver for all frame buffers: it cannot be taken off a single one.</summary>
    public static VtConsole? OnFrameBuffers(Machine machine) => machine.Consoles.FirstOrDefault(c => c.Bound && c.IsOnFrameBuffers());

    /// <summary>
    /// The console driver that shows the terminals on these cards and nowhere else; null: none, or another card's screen has
    /// them, too.
    /// </summary>
    public static VtConsole? On(Machine machine, IReadOnlyList<Gpu> cards)
    {
        var buffers = machine.FrameBuffers;
        if (OnFrameBuffers(machine) is { } console)
            return buffers is not [] && buffers.All(f => cards.Any(c => IsOn(f, c))) ? console : null;
        return buffers is [] && cards.Any(IsTheVgaDevice) ? machine.Consoles.FirstOrDefault(c => c.Bound && c.IsVgaText()) : null;
    }

    public static bool IsOn(FrameBuffer buffer, Gpu gpu) => buffer.Function is { } function && function.SharesSlotWith(gpu.Address);

    public static IEnumerable<FirmwareDisplay> FirmwareOn(Machine machine, Gpu gpu) =>
        machine.FirmwareDisplays.Where(d => d.Bound && d.Function is { } function && function.SharesSlotWith(gpu.Address));

    /// <summary>What has to be seen again when the card is back; null: the terminals are not on these cards alone.</summary>
    public static ConsoleHome? HomeOf(Machine machine, Gpu gpu, IReadOnlyList<Gpu> leaving)
    {
        var mine = machine.FrameBuffers.Where(f => IsOn(f, gpu)).ToList();
        if (On(machine, leaving) is not { } console || !(console.IsVgaText() ? IsTheVgaDevice(gpu) : mine.Count > 0))
            return null;
        ImmutableArray<FirmwareDisplay> firmware = [.. FirmwareOn(machine, gpu).Where(d => mine.Exists(f => f.Firmware == d.Device))];
        return new(console.Name, [.. mine.Select(f => f.Driver)]) { Firmware = firmware is [] ? default : firmware };
    }

    /// <summary>
    /// What shows the terminals, where it is the firmware's on a card for whose VGA class vfio-pci takes it away, and nothing
    /// would show them again; null: no such thing.
    /// </summary>
    /// <remarks>
    /// vfio/pci/vfio_pci_core.c:vfio_pci_vga_init calls aperture_remove_conflicting_pci_devices for class 0x0300 alone.
    /// </remarks>
    public static string? LostWith(Machine machine, Gpu gpu, IReadOnlyList<Gpu> leaving)
    {
        if (!gpu.Display().Class.IsVga() || MakesItsOwn(machine, gpu))
            return null;
        if (machine.FrameBuffers.Any(f => !leaving.Any(c => IsOn(f, c)) || f.Firmware is null))
            return null;
        if (machine.FrameBuffers.FirstOrDefault(f => IsOn(f, gpu)) is { } buffer)
        {
            // Without any fbcon it comes with the kernel's first word (CONFIG_FRAMEBUFFER_CONSOLE_DEFERRED_TAKEOVER); one that
            // somebody unbound shows nothing.
            return OnFrameBuffers(machine) is not null || !machine.Consoles.Any(c => c.IsOnFrameBuffers())
                ? $"{buffer.Name} \"{buffer.Driver}\" of {buffer.Firmware}" : null;
        }
        return On(machine, leaving) is { } text && text.IsVgaText() && IsTheVgaDevice(gpu) ? $"{text.Number} \"{text.Name}\", the card's VGA text mode" : null;
    }

    /// <summary>Whether nvidia_drm gives a card of NVIDIA's a frame buffer of its own, and with it the console.</summary>
    public static bool MakesItsOwn(Machine machine, Gpu gpu) => gpu.IsNvidia() && MakesItsOwn(machine.Module("nvidia_drm").Parameters);

    public static bool MakesItsOwn(ImmutableArray<string> parameters) =>
        parameters.Any(p => p is "modeset=Y" or "modeset=1") && parameters.Any(p => p is "fbdev=Y" or "fbdev=1");

    /// <summary>
    /// How many users of nvidia_drm may be fbcon, which an old kernel lets hold the module of the frame buffers that it is on
    /// (fbcon.c:fbcon_open): no process, and gone with the detached console.
    /// </summary>
    public static int HoldsOf(string module, Machine machine, IReadOnlyList<Gpu> leaving) =>
        module == "nvidia_drm" && On(machine, leaving) is { } console && console.IsOnFrameBuffers()
            ? machine.FrameBuffers.Count(f => f.Driver.StartsWith("nvidia", StringComparison.Ordinal)) : 0;

    /// <summary>
    /// Whether the console that is detached by hand could be bound again by hand. Not after a boot in VGA text mode: when a
    /// driver's frame buffer has taken over from it no system console driver is left, and vt.c:vt_bind needs one.
    /// </summary>
    public static bool CanBindAgain(Machine machine) => machine.Consoles.Any(c => c.IsTheSystems());

    /// <summary>Whether an old kernel's console holds nvidia_drm, which then does not unload before it is detached.</summary>
    public static bool Holds(Machine machine, IReadOnlyList<Gpu> leaving) =>
        HoldsOf("nvidia_drm", machine, leaving) is > 0 and var held && machine.Module("nvidia_drm").Users() >= held;

    // drivers/video/aperture.c: text mode goes with vga_default_device.
    static bool IsTheVgaDevice(Gpu gpu) => gpu.Display() is { BootVga: true } display && display.Class.IsVga();
}
