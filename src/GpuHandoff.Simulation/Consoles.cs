namespace GpuHandoff.Simulation;

/// <summary>A framebuffer (/sys/class/graphics/fbN). <paramref name="Module"/> is null for the firmware's own.</summary>
sealed record Framebuffer(int Index, string Name, PciDevice? Device, string? Module)
{
    public bool IsFirmware => Module is null;
}

/// <summary>
/// Framebuffers and the virtual consoles' drivers (drivers/tty/vt/vt.c, drivers/video/fbdev/core/fbcon.c): vtcon0 is the
/// dummy, vtcon1 is fbcon and there only while there is a framebuffer.
/// </summary>
sealed class Consoles(SimulatedKernel kernel)
{
    readonly List<Framebuffer> framebuffers = [];

    public IReadOnlyList<Framebuffer> Framebuffers => framebuffers;

    /// <summary>fbcon has the consoles; it is there, but has not, after somebody wrote 0 to its bind file.</summary>
    public bool FbconBound { get; set; }

    public bool HasFbcon => framebuffers.Count > 0;

    /// <summary>A bind file that takes every write and does nothing, as vt.c:store_bind does with a failed vt_bind.</summary>
    public bool Deaf { get; set; }

    bool detachedByHand;

    public void Add(string name, PciDevice? device, string? module)
    {
        var index = Enumerable.Range(0, 32).First(free => framebuffers.TrueForAll(fb => fb.Index != free));
        framebuffers.Add(new(index, name, device, module));
        kernel.Nodes.Put($"/dev/fb{index}", new(29, (uint)index, 0x1b0, 0, 44));
        if (!detachedByHand)
            FbconBound = true;
    }

    public void Remove(PciDevice device, string module)
    {
        foreach (var fb in framebuffers.Where(fb => fb.Device?.Address == device.Address && fb.Module == module).ToList())
            Remove(fb);
    }

    /// <summary>fbcon goes over to another framebuffer by itself, or leaves the consoles to the dummy.</summary>
    public void Remove(Framebuffer framebuffer)
    {
        framebuffers.Remove(framebuffer);
        kernel.Nodes.Drop($"/dev/fb{framebuffer.Index}");
        if (HasFbcon)
            return;
        FbconBound = false;
    }

    /// <summary>drivers/video/aperture.c, drivers/firmware/sysfb.c:sysfb_disable: nothing brings it back but a boot.</summary>
    public void EvictFirmware(PciDevice device)
    {
        foreach (var fb in framebuffers.Where(fb => fb.IsFirmware && fb.Device?.Address == device.Address).ToList())
            Remove(fb);
    }

    /// <summary>drivers/tty/vt/vt.c:store_bind: the result of vt_bind and vt_unbind is thrown away.</summary>
    public void Bind(string console, string text)
    {
        if (Deaf)
            return;
        var on = text.TrimEnd('\n') != "0";
        // Binding the dummy takes the consoles from fbcon; unbinding it does nothing, it is the last resort.
        FbconBound = console == "vtcon1" ? on && HasFbcon : FbconBound && !on;
        detachedByHand = !FbconBound;
    }
}
