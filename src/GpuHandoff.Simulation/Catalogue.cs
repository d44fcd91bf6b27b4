using GpuHandoff.Kernel;

namespace GpuHandoff.Simulation;

/// <summary>The modules that a Proxmox host has lying about, and what their drivers do.</summary>
static class Catalogue
{
    public static IEnumerable<ModuleFile> Host(SimulatedKernel kernel)
    {
        yield return new("drm") { Size = 774144 };
        yield return new("drm_kms_helper") { Size = 253952, Needs = ["drm"] };
        yield return new("video") { Size = 77824 };
        yield return new("snd_hda_intel") { LoadedByAlias = true, Size = 61440, Drivers = [SndHdaIntel(kernel)] };
        yield return new("xhci_pci")
        {
            LoadedByAlias = true,
            Drivers = [new("xhci_hcd", hardware => hardware.Class == 0x0c0330) { Module = "xhci_pci" }],
        };
        yield return new("i2c_nvidia_gpu")
        {
            LoadedByAlias = true,
            File = "i2c-nvidia-gpu",
            Drivers = [NvidiaGpuI2c(kernel)],
        };
        yield return new("nvme")
        {
            LoadedByAlias = true,
            Drivers = [new("nvme", hardware => hardware.Class == 0x010802) { Module = "nvme" }],
        };
        // The drivers of pcieport have no module folder: drivers/pci/pcie/portdrv.c is always built in.
        kernel.Bus.Register(new("pcieport", hardware => hardware.IsBridge) { ManagesDma = true });
        yield return Display(kernel, "nouveau", "nouveaudrmfb", hardware => hardware.Vendor == 0x10de && hardware.Class >> 16 == 0x03);
        yield return Display(kernel, "amdgpu", "amdgpudrmfb", hardware => hardware.Vendor == 0x1002 && hardware.Class >> 16 == 0x03);
        yield return Display(kernel, "i915", "i915drmfb", hardware => hardware.Vendor == 0x8086 && hardware.Class >> 16 == 0x03);
    }

    public static IEnumerable<ModuleFile> Vfio(SimulatedKernel kernel)
    {
        yield return new("vfio") { Size = 65536 };
        yield return new("vfio_iommu_type1") { Needs = ["vfio"] };
        yield return new("vfio_pci_core") { File = "vfio-pci-core", Size = 86016, Needs = ["vfio"] };
        yield return new("vfio_pci")
        {
            File = "vfio-pci",
            Size = 16384,
            Needs = ["vfio_pci_core"],
            Parameters = Values(("disable_idle_d3", "N"), ("disable_vga", "N"), ("enable_sriov", "N"), ("ids", ""), ("nointxmask", "N")),
            Drivers = [VfioPci(kernel)],
        };
    }

    public static IEnumerable<ModuleFile> Nvidia(SimulatedKernel kernel, Nvidia nvidia)
    {
        // Debian's packages rename the files; the modules' own names stay (nvidia-kernel-support's modprobe.d aliases).
        string File(string name) => nvidia.Option.DebianNames ? name.Replace("nvidia", "nvidia-current-open") : name;
        yield return new("nvidia")
        {
            File = File("nvidia"),
            Version = nvidia.Option.Version,
            Taint = "OE",
            Size = 11685888,
            Needs = ["drm"],
            LoadedByAlias = true,
            Init = nvidia.Init,
            Drivers =
            [
                new("nvidia", hardware => hardware.IsNvidiaGpu)
                {
                    Module = "nvidia",
                    Probe = nvidia.Probe,
                    BeginRemove = nvidia.BeginRemove,
                    MayLeave = GpuHandoff.Simulation.Nvidia.MayLeave,
                    Leave = nvidia.Leave,
                },
            ],
        };
        yield return new("nvidia_modeset")
        {
            File = File("nvidia-modeset"),
            Version = nvidia.Option.Version,
            Taint = "OE",
            Size = 1605632,
            Needs = ["nvidia", "video"],
        };
        yield return new("nvidia_drm")
        {
            File = File("nvidia-drm"),
            Version = nvidia.Option.Version,
            Taint = "OE",
            Size = 135168,
            Needs = ["nvidia_modeset", "drm", "drm_kms_helper"],
            Parameters = nvidia.DefaultFbdev is { } fbdev
                ? Values(("fbdev", fbdev), ("modeset", nvidia.DefaultModeset))
                : Values(("modeset", nvidia.DefaultModeset)),
            Init = nvidia.InitDrm,
            Exit = nvidia.ExitDrm,
        };
        yield return new("nvidia_uvm")
        {
            File = File("nvidia-uvm"),
            Version = nvidia.Option.Version,
            Taint = "OE",
            Size = 3956736,
            Needs = ["nvidia"],
            Init = kernel.TakeUvmMajor,
        };
    }

    static PciDriver VfioPci(SimulatedKernel kernel) => new("vfio-pci", static _ => true)
    {
        Module = "vfio_pci",
        OverrideOnly = true,
        ManagesDma = true,
        Probe = device =>
        {
            // drivers/vfio/group.c:vfio_group_find_or_alloc, without enable_unsafe_noiommu_mode
            if (device.Hardware.IommuGroup is not { } group || device.Hardware.IsBridge)
                return Errno.Invalid;
            // drivers/vfio/pci/vfio_pci_core.c:vfio_pci_vga_init
            if (device.Hardware.IsVga)
                kernel.Consoles.EvictFirmware(device);
            kernel.Nodes.Put($"/dev/vfio/{group}", new(240, (uint)group, 0x180, 0, 0));
            // drivers/vfio/pci/vfio_pci_core.c:vfio_pci_core_register_device, pm_runtime_allow
            device.PowerControl = "auto";
            return 0;
        },
        // drivers/vfio/vfio_main.c:vfio_unregister_group_dev waits for the user, and asks it every ten seconds.
        MayLeave = static device => device.VfioUsers == 0,
        Leave = device =>
        {
            // vfio_pci_core_unregister_device, pm_runtime_forbid
            device.PowerControl = "on";
            var group = device.Hardware.IommuGroup;
            if (!kernel.Bus.Devices.Any(other => other != device && other.Driver == "vfio-pci" && other.Hardware.IommuGroup == group))
                kernel.Nodes.Drop($"/dev/vfio/{group}");
        },
    };

    /// <summary>drivers/i2c/busses/i2c-nvidia-gpu.c: an adapter with each function; its removal waits until that is closed (i2c_del_adapter).</summary>
    static PciDriver NvidiaGpuI2c(SimulatedKernel kernel) => new("nvidia-gpu", static hardware => hardware is { Vendor: 0x10de, Class: 0x0c8000 })
    {
        Module = "i2c_nvidia_gpu",
        Probe = device =>
        {
            device.I2cAdapter = kernel.TakeI2cNumber();
            kernel.Nodes.Put($"/dev/i2c-{device.I2cAdapter}", new(89, (uint)device.I2cAdapter, 0x1b0, 0, 115));
            return 0;
        },
        MayLeave = static device => device.I2cUsers == 0,
        Leave = device =>
        {
            kernel.Nodes.Drop($"/dev/i2c-{device.I2cAdapter}");
            device.I2cAdapter = null;
        },
    };

    static PciDriver SndHdaIntel(SimulatedKernel kernel) => new("snd_hda_intel", static hardware => hardware.Class >> 8 == 0x0403)
    {
        Module = "snd_hda_intel",
        Probe = device =>
        {
            var card = Enumerable.Range(0, 32).First(free => kernel.Bus.Devices.All(other => other.SoundCard != free));
            device.SoundCard = card;
            kernel.Nodes.Put($"/dev/snd/controlC{card}", new(116, (uint)card * 32, 0x1b0, 0, 29));
            kernel.Nodes.Put($"/dev/snd/pcmC{card}D3p", new(116, ((uint)card * 32) + 16, 0x1b0, 0, 29));
            // sound/core/jack.c: a monitor's plug is an input device.
            kernel.Nodes.Put($"/dev/input/event{JackEvent(card)}", new(13, 64 + (uint)JackEvent(card), 0x1b0, 0, 104));
            return 0;
        },
        // sound/core/init.c:snd_card_disconnect_sync waits until every file of the card is closed.
        MayLeave = static device => device.SoundUsers == 0,
        Leave = device =>
        {
            kernel.Nodes.Drop($"/dev/snd/controlC{device.SoundCard}");
            kernel.Nodes.Drop($"/dev/snd/pcmC{device.SoundCard}D3p");
            kernel.Nodes.Drop($"/dev/input/event{JackEvent(device.SoundCard!.Value)}");
            device.SoundCard = null;
        },
    };

    public static int JackEvent(int card) => 10 + card;

    /// <summary>A native DRM driver: a card and a framebuffer with each device, and both leave with it.</summary>
    static ModuleFile Display(SimulatedKernel kernel, string name, string framebuffer, Func<PciHardware, bool> table) => new(name)
    {
        Size = 3000000,
        Needs = ["drm", "drm_kms_helper"],
        Drivers =
        [
            new(name, table)
            {
                Module = name,
                Probe = device =>
                {
                    kernel.Drm.Register(device, name, modeset: true, device.Hardware.IsVga ? framebuffer : null);
                    return 0;
                },
                Leave = device => kernel.Drm.UnregisterAll(device, name),
            },
        ],
    };

    static Dictionary<string, string> Values(params (string Name, string Value)[] values) =>
        values.ToDictionary(pair => pair.Name, pair => pair.Value);
}
