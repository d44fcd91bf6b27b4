namespace GpuHandoff.Simulation;

/// <summary>A DRM device: /dev/dri/cardN and renderDN (drivers/gpu/drm/drm_drv.c:drm_dev_register).</summary>
sealed record DrmCard(int Index, PciDevice Device, string Module, bool Modeset)
{
    /// <summary>Open files, shared with the module's reference count.</summary>
    public int Users { get; set; }

    public string Name => $"card{Index}";
    public string RenderName => $"renderD{128 + Index}";
}

sealed class Drm(SimulatedKernel kernel)
{
    readonly List<DrmCard> cards = [];
    readonly HashSet<int> platformCards = [];

    public IReadOnlyList<DrmCard> Cards => cards;

    public IEnumerable<DrmCard> Of(PciDevice device) => cards.Where(card => card.Device.Address == device.Address);

    public DrmCard? FindByMinor(uint minor) => cards.Find(card => minor == card.Index || minor == 128 + card.Index);

    /// <summary>A frame buffer comes with the first monitor.</summary>
    public bool HasMonitors { get; set; } = true;

    /// <summary>Numbers of cards that are no PCI function's: simpledrm's.</summary>
    public IEnumerable<int> PlatformCards => platformCards;

    int FreeIndex() => Enumerable.Range(0, 64).First(free => !platformCards.Contains(free) && cards.TrueForAll(card => card.Index != free));

    /// <summary>drivers/gpu/drm/sysfb/simpledrm.c: no DRIVER_RENDER, so no render node.</summary>
    public int TakeForPlatform()
    {
        var index = FreeIndex();
        platformCards.Add(index);
        kernel.Nodes.Put($"/dev/dri/card{index}", new(226, (uint)index, 0x1b0, 0, 44));
        return index;
    }

    public void FreePlatform(int index)
    {
        platformCards.Remove(index);
        kernel.Nodes.Drop($"/dev/dri/card{index}");
    }

    /// <summary>drivers/gpu/drm/drm_drv.c:drm_dev_register, and the fbdev emulation on top.</summary>
    /// <param name="framebuffer">The name of the fbdev that comes with it, null for none.</param>
    public void Register(PciDevice device, string module, bool modeset, string? framebuffer)
    {
        var index = FreeIndex();
        var card = new DrmCard(index, device, module, modeset);
        cards.Add(card);
        // devtmpfs makes these nodes and takes them away.
        kernel.Nodes.Put($"/dev/dri/{card.Name}", new(226, (uint)index, 0x1b0, 0, 44));
        kernel.Nodes.Put($"/dev/dri/{card.RenderName}", new(226, 128 + (uint)index, 0x1b0, 0, 104));
        if (framebuffer is null)
            return;
        // drivers/video/aperture.c:aperture_remove_conflicting_pci_devices: for good, until the next boot.
        kernel.Consoles.EvictFirmware(device);
        if (HasMonitors)
            kernel.Consoles.Add(framebuffer, device, module);
    }

    public void Unregister(DrmCard card)
    {
        if (card is { Users: > 0, Module: "nvidia_drm" })
            kernel.Hazard($"{card.Name} of {card.Device.Address} was freed under open files");
        kernel.Consoles.Remove(card.Device, card.Module);
        cards.Remove(card);
        kernel.Nodes.Drop($"/dev/dri/{card.Name}");
        kernel.Nodes.Drop($"/dev/dri/{card.RenderName}");
    }

    public void UnregisterAll(PciDevice device, string module)
    {
        foreach (var card in Of(device).Where(card => card.Module == module).ToList())
            Unregister(card);
    }

    /// <summary>The PCI device is gone, and its folder with it; an orphaned card hangs on in memory only.</summary>
    public void Forget(PciDevice device)
    {
        foreach (var card in Of(device).ToList())
            Unregister(card);
    }
}
