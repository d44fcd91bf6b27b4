using GpuHandoff.Kernel;

namespace GpuHandoff.Simulation;

/// <summary>
/// NVIDIA's kernel modules as seen from outside: usage counts, minors, DRM cards, and an unbind that waits for users
/// (kernel-open/nvidia/nv-pci.c:nv_pci_probe, nv_pci_remove; kernel-open/nvidia-drm/nvidia-drm-drv.c).
/// </summary>
sealed class Nvidia(SimulatedKernel kernel, DriverOption option)
{
    public const string DefaultUuid = "GPU-????????-????-????-????-????????????";

    public static string UuidOf(PciDevice device) => $"GPU-00000000-0000-0000-0000-{device.Address.Bus:x12}";

    public DriverOption Option { get; } = option;

    public Version Release { get; } = Version.Parse(option.Version);

    /// <summary>
    /// nvidia_modeset_probe and nvidia_modeset_remove exist, so DRM cards follow bind and unbind: 580.105.08 and later,
    /// 580.94.18, 590.44.01 and later, 595.44.02 and later.
    /// </summary>
    public bool DrmFollows => Release is { Major: 580, Minor: 94 } or { Major: 580, Minor: >= 105 } or { Major: > 580 };

    /// <summary>From 595 the GPU is off the list before the wait, and its users' references never drop.</summary>
    public bool NeverRecovers => Release.Major >= 595;

    /// <summary>From 575.64.05 an open during the removal fails (NV_FLAG_PCI_REMOVE_IN_PROGRESS).</summary>
    public bool RefusesOpensWhileRemoving => Release.Major >= 575;

    public string DefaultModeset => Release.Major >= 595 ? "Y" : "N";

    public string? DefaultFbdev => Release.Major switch
    {
        < 550 => null,
        < 570 => "N",
        _ => "Y",
    };

    LoadedModule? DrmModule => kernel.Modules.Find("nvidia_drm");

    bool Modeset => DrmModule?.Parameters.GetValueOrDefault("modeset") is "Y" or "1";

    bool Fbdev => DrmModule?.Parameters.GetValueOrDefault("fbdev") is "Y" or "1";

    IEnumerable<PciDevice> Bound => kernel.Bus.Devices.Where(device => device.Driver == "nvidia");

    public PciDevice? OfMinor(uint minor) => Bound.FirstOrDefault(device => device.Minor == minor);

    public int Probe(PciDevice device)
    {
        if (!device.Hardware.IsNvidiaGpu)
            return Errno.NotPermitted;
        // kernel-open/nvidia/nv.c:nv_linux_add_device_locked: the lowest free minor.
        device.Minor = Enumerable.Range(0, 247).First(minor => kernel.Bus.Devices.All(other => other.Minor != minor));
        device.I2cAdapter = kernel.TakeI2cNumber();
        kernel.Nodes.Put($"/dev/i2c-{device.I2cAdapter}", new(89, (uint)device.I2cAdapter, 0x1b0, 0, 115));
        if (DrmModule is not null && DrmFollows)
            AddCard(device);
        return 0;
    }

    public void BeginRemove(PciDevice device)
    {
        if (DrmFollows)
            RemoveCard(device);
        device.NeverLets = NeverRecovers && device.UsageCount > 0;
    }

    /// <summary>nv_pci_remove loops until nobody uses the GPU, then i2c_del_adapter waits for its open adapters.</summary>
    public static bool MayLeave(PciDevice device) => device is { UsageCount: 0, I2cUsers: 0 };

    /// <summary>Without modeset the old nvidia_drm is not told: its card stays behind, and a bind makes no new one.</summary>
    public void Leave(PciDevice device)
    {
        device.Minor = null;
        device.Persistent = false;
        device.Draining = false;
        kernel.Nodes.Drop($"/dev/i2c-{device.I2cAdapter}");
        device.I2cAdapter = null;
    }

    /// <summary>nvidia_drm's init: one card for each GPU that is there now.</summary>
    public int InitDrm()
    {
        foreach (var device in Bound.ToList())
            AddCard(device);
        return 0;
    }

    /// <summary>nvidia_drm's exit: all cards, orphans too, and with them modeset's usage counts.</summary>
    public void ExitDrm()
    {
        foreach (var card in kernel.Drm.Cards.Where(card => card.Module == "nvidia_drm").ToList())
            kernel.Drm.Unregister(card);
        foreach (var device in kernel.Bus.Devices)
            device.ModesetUser = false;
    }

    /// <summary>kernel-open/nvidia/nv.c:nvidia_init_module gives ENODEV where no GPU was probed.</summary>
    public int Init() => Bound.Any() ? 0 : Errno.NoDevice;

    void AddCard(PciDevice device)
    {
        if (device.Hardware.Class >> 8 is not (0x0300 or 0x0302))
            return;
        if (Modeset)
            device.ModesetUser = true;
        kernel.Drm.Register(device, "nvidia_drm", Modeset, Modeset && Fbdev && device.Hardware.IsVga ? "nvidia-drmdrmfb" : null);
    }

    void RemoveCard(PciDevice device)
    {
        kernel.Drm.UnregisterAll(device, "nvidia_drm");
        device.ModesetUser = false;
    }
}
