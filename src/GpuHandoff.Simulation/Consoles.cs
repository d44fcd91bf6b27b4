using GpuHandoff.Kernel;

namespace GpuHandoff.Simulation;

/// <summary>A framebuffer (/sys/class/graphics/fbN). <paramref name="Module"/> is null for the firmware's own.</summary>
sealed record Framebuffer(int Index, string Name, PciDevice Device, string? Module)
{
    public bool IsFirmware => Module is null;
}

/// <summary>
/// Framebuffers and the virtual consoles' drivers (drivers/tty/vt/vt.c, drivers/video/fbdev/core/fbcon.c): the first is the
/// dummy or the card's VGA text, and fbcon is there only while there is a framebuffer.
/// </summary>
sealed class Consoles(SimulatedKernel kernel)
{
    const string DummyName = "(S) dummy device";
    const string LateDummyName = "(M) dummy device";
    const string FbconName = "(M) frame buffer device";
    const string VgaName = "(S) VGA+";

    readonly List<Framebuffer> framebuffers = [];

    public IReadOnlyList<Framebuffer> Framebuffers => framebuffers;

    /// <summary>fbcon has the consoles; it is there, but has not, after somebody wrote 0 to its bind file.</summary>
    public bool FbconBound { get; set; }

    public bool HasFbcon => framebuffers.Count > 0;

    /// <summary>A bind file that takes every write and does nothing, as vt.c:store_bind does with a failed vt_bind.</summary>
    public bool Deaf { get; set; }

    /// <summary>The firmware's picture; null: there was none, or it was evicted.</summary>
    public FirmwarePicture? Firmware { get; private set; }

    /// <summary>The machine booted in VGA text mode, which the default VGA device shows (drivers/video/console/vgacon.c).</summary>
    public bool HasVgaText { get; set; }

    /// <summary>
    /// VGA text mode was the system's console driver and has been removed: the dummy that took over counts as a module's, and no
    /// system driver is left (drivers/video/aperture.c:vga_remove_vgacon, drivers/tty/vt/vt.c:do_register_con_driver).
    /// </summary>
    public bool HasNoSystemDriver { get; private set; }

    /// <summary>fbcon gets another number each time that it comes.</summary>
    public bool NumbersMove { get; set; }

    /// <summary>fbcon holds the module of the framebuffers that it is on, as older kernels do (fbcon.c:fbcon_open).</summary>
    public bool FbconHoldsModules { get; set; }

    /// <summary>How often the visible terminal was drawn anew by hand.</summary>
    public int Redraws { get; private set; }

    bool detachedByHand;
    int fbconNumber = 1;

    // ---- console drivers ----

    public IEnumerable<(string Number, string Name, bool Bound)> Drivers()
    {
        yield return ("vtcon0", HasVgaText ? VgaName : HasNoSystemDriver ? LateDummyName : DummyName, !FbconBound);
        if (HasFbcon)
            yield return ($"vtcon{fbconNumber}", FbconName, FbconBound);
    }

    /// <summary>Who has the consoles, by name.</summary>
    public string Owner => Drivers().Where(driver => driver.Bound).Select(driver => driver.Name[4..]).First();

    /// <summary>References that fbcon has on a module.</summary>
    public int Holds(string module) => FbconHoldsModules && FbconBound ? framebuffers.Count(fb => fb.Module == module) : 0;

    /// <summary>drivers/tty/vt/vt.c:store_bind: the result of vt_bind and vt_unbind is thrown away.</summary>
    public void Bind(string console, string text)
    {
        if (Deaf)
            return;
        var on = text.TrimEnd('\n') != "0";
        // vt.c:vt_bind takes terminals from the system's driver only; without one it does nothing.
        if (on && HasNoSystemDriver)
            return;
        // Binding the dummy takes the consoles from fbcon; unbinding it does nothing, it is the last resort.
        FbconBound = console == $"vtcon{fbconNumber}" ? on && HasFbcon : FbconBound && !on;
        detachedByHand = !FbconBound;
    }

    /// <summary>fbcon.c:store_rotate, fbcon_modechanged: update_screen for a visible text terminal.</summary>
    public void Rotate(string text)
    {
        if (text.TrimEnd('\n') != "0")
            throw new Refusal(Errno.Invalid);
        if (FbconBound)
            Redraws++;
    }

    // ---- framebuffers ----

    public void Add(string name, PciDevice device, string? module)
    {
        var index = Enumerable.Range(0, 32).First(free => framebuffers.TrueForAll(fb => fb.Index != free));
        if (!HasFbcon && NumbersMove)
            fbconNumber++;
        framebuffers.Add(new(index, name, device, module));
        kernel.Nodes.Put($"/dev/fb{index}", new(29, (uint)index, 0x1b0, 0, 44));
        // The first frame buffer registers fbcon, which binds it, whatever was done by hand before (fbcon.c:do_fbcon_takeover).
        if (!detachedByHand)
            FbconBound = true;
    }

    public void Remove(PciDevice device, string module)
    {
        foreach (var fb in framebuffers.Where(fb => fb.Device.Address == device.Address && fb.Module == module).ToList())
            Remove(fb);
    }

    /// <summary>fbcon goes over to another framebuffer by itself, or leaves the consoles to the dummy.</summary>
    public void Remove(Framebuffer framebuffer)
    {
        framebuffers.Remove(framebuffer);
        kernel.Nodes.Drop($"/dev/fb{framebuffer.Index}");
        if (HasFbcon)
            return;
        // fbcon.c:fbcon_fb_unregistered: with the last one fbcon's driver is unregistered.
        FbconBound = detachedByHand = false;
    }

    // ---- the firmware's ----

    public void Boot(FirmwarePicture picture)
    {
        Firmware = picture;
        BindFirmware(picture.Driver, picture.Name);
    }

    /// <summary>drivers/base/bus.c:bind_store of a platform driver.</summary>
    public void BindFirmware(string driver, string text)
    {
        if (Firmware is not { } picture || picture.Driver != driver || picture.Name != text.TrimEnd('\n'))
            throw new Refusal(Errno.NoDevice);
        if (picture.Bound)
            throw new Refusal(Errno.Busy);
        picture.Bound = true;
        if (picture.IsDrm)
            picture.Card = kernel.Drm.TakeForPlatform();
        Add(picture.Kind, picture.Device, null);
    }

    /// <summary>Its driver lets go and the device stays: it can be bound again.</summary>
    public void UnbindFirmware(string driver, string text)
    {
        if (Firmware is not { Bound: true } picture || picture.Driver != driver || picture.Name != text.TrimEnd('\n'))
            throw new Refusal(Errno.NoDevice);
        Release(picture);
    }

    /// <summary>drivers/video/aperture.c, drivers/firmware/sysfb.c:sysfb_disable: nothing brings it back but a boot.</summary>
    public void EvictFirmware(PciDevice device)
    {
        if (Firmware is { } picture && picture.Device.Address == device.Address)
        {
            Release(picture);
            Firmware = null;
        }
        // aperture.c:__aperture_remove_legacy_vga_devices, vga_remove_vgacon
        if (device.Hardware.BootVga && HasVgaText)
            (HasVgaText, HasNoSystemDriver) = (false, true);
    }

    void Release(FirmwarePicture picture)
    {
        foreach (var fb in framebuffers.Where(fb => fb.IsFirmware).ToList())
            Remove(fb);
        if (picture.Card is { } card)
            kernel.Drm.FreePlatform(card);
        (picture.Bound, picture.Card) = (false, null);
    }
}
