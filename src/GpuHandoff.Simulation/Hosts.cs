using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>Ready-made machines. Where nothing else is said the host has no screen and vfio-pci is not loaded yet.</summary>
public static class Hosts
{
    static readonly string[] NvidiaStack = ["nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm"];

    /// <summary>Every machine, for sweeps.</summary>
    public static IReadOnlyList<(string Name, Func<SimulatedKernel> Boot)> All { get; } =
    [
        ("single-gpu", () => SingleGpu()),
        ("single-gpu-modeset", () => SingleGpu(new(Modeset: true))),
        ("single-gpu-580", () => SingleGpu(new("580.126.20"))),
        ("single-gpu-580-modeset", () => SingleGpu(new("580.126.20", Modeset: true))),
        ("single-gpu-595", () => SingleGpu(new("595.45.04"))),
        ("debian-names", () => SingleGpu(new(DebianNames: true))),
        ("two-identical-gpus", () => TwoIdenticalGpus()),
        ("two-identical-gpus-580", () => TwoIdenticalGpus(new("580.126.20"))),
        ("two-identical-gpus-modeset", () => TwoIdenticalGpus(new(Modeset: true))),
        ("two-identical-gpus-595", () => TwoIdenticalGpus(new("595.45.04"))),
        ("four-functions", () => FourFunctions()),
        ("with-stranger", () => WithStranger()),
        ("with-igpu", () => WithIgpu()),
        ("amd-gpu", AmdGpu),
        ("nouveau-first", () => NouveauFirst()),
        ("no-nvidia-module", NoNvidiaModule),
        ("no-vfio-pci", () => NoVfioPci()),
        ("no-iommu", () => NoIommu()),
        ("datacenter-gpu", () => DatacenterGpu()),
        ("already-on-vfio", () => AlreadyOnVfio()),
        ("firmware-console", () => FirmwareConsole()),
        ("simpledrm-console", () => SimpledrmConsole()),
        ("vesa-console", () => VesaConsole()),
        ("vga-text-console", () => VgaTextConsole()),
        ("datacenter-console", () => DatacenterConsole()),
        ("nvidia-console", () => NvidiaConsole()),
        ("nvidia-console-580", () => NvidiaConsole(new("580.126.20"))),
        ("nvidia-console-old-kernel", () => NvidiaConsoleOnAnOldKernel()),
        ("nvidia-console-after-vga-text", () => NvidiaConsoleAfterVgaText()),
        ("nvidia-console-after-vga-text-580", () => NvidiaConsoleAfterVgaText(new("580.126.20"))),
        ("nouveau-console", () => NouveauConsole()),
        ("console-on-the-other-card", () => ConsoleOnTheOtherCard()),
        ("vfio-built-in", () => VfioBuiltIn()),
        ("resizable-bar", () => ResizableBar()),
        ("busy-services", () => BusyServices()),
        ("busy-services-580-modeset", () => BusyServices(new("580.126.20", Modeset: true))),
        ("two-gpus-persistenced", () => TwoGpusPersistenced()),
        ("two-gpus-persistenced-595", () => TwoGpusPersistenced(new("595.45.04", Modeset: false))),
        ("lxc-containers", () => LxcContainers()),
        ("docker-container", () => DockerContainer()),
        ("legacy-persistence", () => LegacyPersistence()),
        ("two-gpus-persistenced-alone", () => TwoGpusPersistenced(smi: false)),
        ("mps", () => Mps()),
        ("two-gpus-mps", () => TwoGpusMps()),
        ("host-target", () => HostTargets()),
        ("display-manager", () => DisplayManager()),
        ("lxc-by-config", () => LxcByConfig()),
    ];

    /// <summary>An RTX 4090 with its audio function, alone in their group, behind a root port; all NVIDIA modules loaded.</summary>
    public static SimulatedKernel SingleGpu(DriverOption? driver = null) => Nvidia(driver, Card(1, bootVga: true)).Boot();

    /// <summary>Twins, each with its root port and group.</summary>
    public static SimulatedKernel TwoIdenticalGpus(DriverOption? driver = null) =>
        Nvidia(driver, [.. Card(1, bootVga: true), .. Card(2)]).Boot();

    /// <summary>A Turing card: graphics, audio, USB and UCSI.</summary>
    public static SimulatedKernel FourFunctions(DriverOption? driver = null) => Nvidia(driver,
        [
            .. Card(1, bootVga: true, device: 0x1f02, audio: 0x10f9, model: "NVIDIA GeForce RTX 2070"),
            Function(1, 2, 0x1ada, 0x0c0330),
            Function(1, 3, 0x1adb, 0x0c8000),
        ])
        .Loading("xhci_pci", "i2c_nvidia_gpu").Boot();

    /// <summary>An NVMe disk in the GPU's group, which the host lives on.</summary>
    public static SimulatedKernel WithStranger(DriverOption? driver = null) => Nvidia(driver,
        [
            .. Card(1, bootVga: true),
            RootPort(5),
            new(new(0, 5, 0, 0), 0x144d, 0xa80a, 0x010802)
            {
                Behind = new(0, 0, 5, 0), IommuGroup = 11, SubsystemVendor = 0x144d, SubsystemDevice = 0xa801, ResetMethods = ["flr", "bus"],
            },
        ])
        .Loading("nvme").Boot();

    /// <summary>The console is on the processor's own graphics; the NVIDIA card has none.</summary>
    public static SimulatedKernel WithIgpu(DriverOption? driver = null) =>
        new HostBuilder().With(IntelGraphics()).With(Card(1)).WithNvidiaDriver(driver ?? new()).Loading("i915", "snd_hda_intel").Loading(NvidiaStack).Boot();

    /// <summary>An AMD card with amdgpu and its audio function, and the console on it.</summary>
    public static SimulatedKernel AmdGpu() =>
        new HostBuilder().With(RootPort(1),
            new PciHardware(new(0, 1, 0, 0), 0x1002, 0x744c, 0x030000)
            {
                Behind = new(0, 0, 1, 0),
                IommuGroup = 11,
                BootVga = true,
                ResetMethods = ["bus"],
                Resources = Bars(1),
            },
            new PciHardware(new(0, 1, 0, 1), 0x1002, 0xab30, 0x040300) { Behind = new(0, 0, 1, 0), IommuGroup = 11 })
            .Loading("amdgpu", "snd_hda_intel").Boot();

    /// <summary>nouveau has the card, and NVIDIA's modules lie there unloaded.</summary>
    public static SimulatedKernel NouveauFirst(DriverOption? driver = null) =>
        new HostBuilder().With(Card(1, bootVga: true)).WithNvidiaDriver(driver ?? new()).Loading("nouveau", "snd_hda_intel").Boot();

    /// <summary>A host that only ever lent its GPU: no NVIDIA driver, no nouveau.</summary>
    public static SimulatedKernel NoNvidiaModule() =>
        new HostBuilder().With(Card(1, bootVga: true)).WithoutModuleFile("nouveau").Loading("snd_hda_intel").Boot();

    public static SimulatedKernel NoVfioPci(DriverOption? driver = null) =>
        Nvidia(driver, Card(1, bootVga: true)).WithoutModuleFile("vfio_pci").Boot();

    /// <summary>The IOMMU is off: no groups, and vfio-pci's probe fails.</summary>
    public static SimulatedKernel NoIommu(DriverOption? driver = null) => Nvidia(driver, Card(1, bootVga: true)).WithoutIommu().Boot();

    /// <summary>A 3D controller without audio or VGA (class 0302).</summary>
    public static SimulatedKernel DatacenterGpu(DriverOption? driver = null) => Nvidia(driver, DatacenterCard()).Boot();

    static IReadOnlyList<PciHardware> DatacenterCard() =>
    [
        RootPort(1),
        Function(1, 0, 0x2330, 0x030200) with
        {
            SubsystemVendor = 0x10de, SubsystemDevice = 0x16c1, ResetMethods = ["flr"], Resources = Bars(1), Model = "NVIDIA H100 80GB HBM3",
        },
    ];

    /// <summary>The GPU went to vfio-pci at boot (overrides set in the initramfs); NVIDIA's modules were never loaded.</summary>
    public static SimulatedKernel AlreadyOnVfio(DriverOption? driver = null) =>
        new HostBuilder().With(Card(1, bootVga: true)).WithNvidiaDriver(driver ?? new())
            .WithOverride("0000:01:00.0", "vfio-pci").WithOverride("0000:01:00.1", "vfio-pci")
            .Loading("vfio_pci", "vfio_iommu_type1", "snd_hda_intel").Boot();

    /// <summary>The console is the firmware's framebuffer on the only GPU: vfio-pci destroys it until the next boot.</summary>
    public static SimulatedKernel FirmwareConsole(DriverOption? driver = null) =>
        Nvidia(driver, Card(1, bootVga: true)).WithFirmwareConsole("0000:01:00.0").Boot();

    /// <summary>As Proxmox boots by UEFI: simpledrm has card0 and the console, and its device does not say on which card.</summary>
    public static SimulatedKernel SimpledrmConsole(DriverOption? driver = null) =>
        Nvidia(driver, Card(1, bootVga: true)).WithFirmwareConsole("0000:01:00.0", "simpledrmdrmfb", below: false).Boot();

    /// <summary>vesafb on the only GPU, with a driver that knows nothing of consoles.</summary>
    public static SimulatedKernel VesaConsole() =>
        Nvidia(new("535.247.01"), Card(1, bootVga: true)).WithFirmwareConsole("0000:01:00.0", "VESA VGA", below: false).Boot();

    /// <summary>Booted by a BIOS, without any frame buffer: the terminals are in the only GPU's VGA text mode.</summary>
    public static SimulatedKernel VgaTextConsole(DriverOption? driver = null) => Nvidia(driver, Card(1, bootVga: true)).WithVgaText().Boot();

    /// <summary>The firmware's picture is on a 3D controller, from which vfio-pci does not take it.</summary>
    public static SimulatedKernel DatacenterConsole(DriverOption? driver = null) =>
        Nvidia(driver, DatacenterCard()).WithFirmwareConsole("0000:01:00.0", "simple").Boot();

    /// <summary>fbcon holds nvidia_drm, and comes back under another number each time.</summary>
    public static SimulatedKernel NvidiaConsoleOnAnOldKernel(DriverOption? driver = null)
    {
        var kernel = NvidiaConsole(driver);
        kernel.LetFbconHoldModules();
        kernel.MoveConsoleNumbers();
        return kernel;
    }

    /// <summary>Booted by UEFI, and nouveau has taken the console over from efifb.</summary>
    public static SimulatedKernel NouveauConsole(DriverOption? driver = null) =>
        new HostBuilder().With(Card(1, bootVga: true)).WithNvidiaDriver(driver ?? new()).WithFirmwareConsole("0000:01:00.0")
            .Loading("nouveau", "snd_hda_intel").Boot();

    /// <summary>Both cards have a frame buffer, and the console began on the processor's own graphics.</summary>
    public static SimulatedKernel ConsoleOnTheOtherCard(DriverOption? driver = null) =>
        new HostBuilder().With(IntelGraphics()).With(Card(1)).WithFirmwareConsole("0000:00:02.0", "simpledrmdrmfb")
            .WithNvidiaDriver((driver ?? new()) with { Modeset = true, Fbdev = true }).Loading("i915", "snd_hda_intel").Loading(NvidiaStack).Boot();

    /// <summary>The console is nvidia-drm's (modeset=1 fbdev=1), which comes back when it is loaded again.</summary>
    public static SimulatedKernel NvidiaConsole(DriverOption? driver = null) =>
        Nvidia((driver ?? new()) with { Modeset = true, Fbdev = true }, Card(1, bootVga: true)).WithFirmwareConsole("0000:01:00.0").Boot();

    /// <summary>
    /// Booted by a BIOS, and nvidia_drm's frame buffer has taken over from VGA text mode: no system console driver is left.
    /// </summary>
    public static SimulatedKernel NvidiaConsoleAfterVgaText(DriverOption? driver = null) =>
        Nvidia((driver ?? new()) with { Modeset = true, Fbdev = true }, Card(1, bootVga: true)).WithVgaText().Boot();

    /// <summary>vfio-pci is part of the kernel: nothing to load, and nothing to unload.</summary>
    public static SimulatedKernel VfioBuiltIn(DriverOption? driver = null) =>
        Nvidia(driver, Card(1, bootVga: true)).WithBuiltIn("vfio", "vfio_pci_core", "vfio_pci", "vfio_iommu_type1").Boot();

    /// <summary>A card whose BAR 1 can be 64 MiB to 16 GiB and is 256 MiB, and which may sleep, all its functions too.</summary>
    public static SimulatedKernel ResizableBar(DriverOption? driver = null)
    {
        var card = Card(1, bootVga: true);
        var kernel = Nvidia(driver, [.. card.Select(function => function.Resources.Count > 0
            ? function with { BarSizes = new Dictionary<int, ulong> { [1] = 0x7fc0 } } : function)]).Boot();
        foreach (var device in kernel.Devices.Where(device => device.Driver != "pcieport"))
            device.PowerControl = "auto";
        return kernel;
    }

    /// <summary>A single GPU that nvidia-persistenced and ollama have open; display-manager.service is down.</summary>
    public static SimulatedKernel BusyServices(DriverOption? driver = null) => Nvidia(driver, Card(1, bootVga: true)).Then(kernel =>
    {
        kernel.InstallNvidiaSmi();
        kernel.StartUnit(kernel.AddPersistenced());
        kernel.StartUnit(kernel.AddUnit("ollama.service", "ollama", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"));
        kernel.AddUnit("display-manager.service", "gdm", "/dev/dri/card0");
    }).Boot();

    /// <summary>Twins: nvidia-persistenced has both open, and a job works on the second one only.</summary>
    public static SimulatedKernel TwoGpusPersistenced(DriverOption? driver = null, bool smi = true) =>
        Nvidia(driver ?? new("580.126.20"), [.. Card(1, bootVga: true), .. Card(2)]).Then(kernel =>
        {
            if (smi)
                kernel.InstallNvidiaSmi();
            kernel.StartUnit(kernel.AddPersistenced());
            kernel.StartUnit(kernel.AddUnit("training.service", "python3", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia1"));
        }).Boot();

    /// <summary>Proxmox's containers: 201 and 202 use the GPU, 203 runs without it, 204 is stopped.</summary>
    public static SimulatedKernel LxcContainers(DriverOption? driver = null) => Nvidia(driver, Card(1, bootVga: true)).Then(kernel =>
    {
        foreach (var id in (string[])["201", "202"])
            kernel.StartContainer(kernel.AddContainer(ContainerKind.Lxc, id, "jellyfin", "/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm"));
        kernel.StartContainer(kernel.AddContainer(ContainerKind.Lxc, "203", "nginx"));
        kernel.AddContainer(ContainerKind.Lxc, "204", "jellyfin", "/dev/nvidiactl", "/dev/nvidia0");
    }).Boot();

    /// <summary>Twins without nvidia-smi; a Docker container has the first one open.</summary>
    public static SimulatedKernel DockerContainer(DriverOption? driver = null) =>
        Nvidia(driver ?? new("580.126.20"), [.. Card(1, bootVga: true), .. Card(2)]).Then(kernel => kernel.StartContainer(kernel.AddContainer(
            ContainerKind.Docker, string.Concat(Enumerable.Repeat("0123456789abcdef", 4)), "python3", "/dev/nvidiactl", "/dev/nvidia0"))).Boot();

    /// <summary>Twins; the first one is in persistence mode without a daemon, and no process shows it open.</summary>
    public static SimulatedKernel LegacyPersistence(DriverOption? driver = null) =>
        Nvidia(driver ?? new("580.126.20"), [.. Card(1, bootVga: true), .. Card(2)]).Then(kernel =>
        {
            kernel.InstallNvidiaSmi(drains: false);
            kernel.SetLegacyPersistence(new(0, 1, 0, 0), on: true);
        }).Boot();

    /// <summary>A single GPU that CUDA MPS has; somebody started it by hand, in no unit of its own.</summary>
    public static SimulatedKernel Mps(DriverOption? driver = null) =>
        Nvidia(driver, Card(1, bootVga: true)).Then(kernel => kernel.StartMps("/run/mps", user: 997)).Boot();

    /// <summary>Twins; one MPS serves both, and nvidia-dcgm watches both.</summary>
    public static SimulatedKernel TwoGpusMps(DriverOption? driver = null) =>
        Nvidia(driver ?? new("580.126.20"), [.. Card(1, bootVga: true), .. Card(2)]).Then(kernel =>
        {
            kernel.StartMps(user: 0, nodes: ["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1"]);
            kernel.StartUnit(kernel.AddUnit("nvidia-dcgm.service", "nv-hostengine", "/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1"));
        }).Boot();

    /// <summary>ollama is bound to the host's target of the card; jellyfin is, too, and is down.</summary>
    public static SimulatedKernel HostTargets(DriverOption? driver = null) => Nvidia(driver, Card(1, bootVga: true)).Then(kernel =>
    {
        var target = kernel.AddHostTarget(new(0, 1, 0, 0));
        kernel.StartUnit(kernel.AddBoundUnit(target, "ollama.service", "ollama", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"));
        kernel.AddBoundUnit(target, "jellyfin.service", "jellyfin", "/dev/nvidiactl", "/dev/nvidia0");
    }).Boot();

    /// <summary>A graphical session on the card, which a display manager has opened.</summary>
    public static SimulatedKernel DisplayManager(DriverOption? driver = null) =>
        Nvidia((driver ?? new()) with { Modeset = true, Fbdev = true }, Card(1, bootVga: true))
            .Then(kernel => kernel.StartUnit(kernel.AddDisplayManager())).Boot();

    /// <summary>
    /// Proxmox's containers with the GPU in their configs, none of which has it open: 201 by devN, 202 by raw lines; 203 has
    /// none, 204 is stopped.
    /// </summary>
    public static SimulatedKernel LxcByConfig(DriverOption? driver = null) => Nvidia(driver, Card(1, bootVga: true)).Then(kernel =>
    {
        foreach (var (id, config) in new[]
        {
            ("201", "arch: amd64\ndev0: /dev/nvidia0,mode=0666\ndev1: /dev/nvidiactl\ndev2: /dev/nvidia-uvm"),
            ("202", "lxc.cgroup2.devices.allow: c 195:* rwm\nlxc.mount.entry: /dev/nvidia0 dev/nvidia0 none bind,optional,create=file"),
            ("203", "arch: amd64\nmp0: /tank,mp=/tank"),
            ("204", "dev0: /dev/nvidia0"),
        })
        {
            var container = kernel.AddContainer(ContainerKind.Lxc, id, "nginx");
            container.Config = config;
            if (id != "204")
                kernel.StartContainer(container);
        }
    }).Boot();

    // ---- parts ----

    /// <summary>A root port at 00:0B.0 and an NVIDIA card of two functions on bus B, in group 10 + B.</summary>
    public static IReadOnlyList<PciHardware> Card(
        int bus, bool bootVga = false, int device = 0x2684, int audio = 0x22ba, string model = "NVIDIA GeForce RTX 4090") =>
    [
        RootPort(bus),
        Function(bus, 0, device, 0x030000) with { BootVga = bootVga, ResetMethods = ["flr", "bus"], Resources = Bars(bus), Model = model },
        Function(bus, 1, audio, 0x040300),
    ];

    /// <summary>One of an NVIDIA card's functions.</summary>
    public static PciHardware Function(int bus, int function, int device, int @class) =>
        new(new(0, bus, 0, function), 0x10de, device, @class) { Behind = new PciAddress(0, 0, bus, 0), IommuGroup = 10 + bus };

    public static PciHardware RootPort(int bus) =>
        new(new(0, 0, bus, 0), 0x8086, 0xa70d, 0x060400) { IommuGroup = bus, SubsystemVendor = 0x8086, SubsystemDevice = 0x7270, Revision = 1 };

    public static PciHardware IntelGraphics() =>
        new(new(0, 0, 2, 0), 0x8086, 0xa780, 0x030000)
        {
            IommuGroup = 0,
            BootVga = true,
            SubsystemVendor = 0x8086,
            SubsystemDevice = 0x2212,
            Revision = 4,
            Resources = Bars(0x20),
        };

    static HostBuilder Nvidia(DriverOption? driver, IReadOnlyList<PciHardware> cards) =>
        new HostBuilder().With(cards).WithNvidiaDriver(driver ?? new())
            .Loading("snd_hda_intel").Loading(NvidiaStack);

    // drivers/pci/pci-sysfs.c:resource_show: BAR 0 of 16 MiB, BAR 1 of 256 MiB and BAR 3 of 32 MiB, prefetchable.
    static (ulong Start, ulong End, ulong Flags)[] Bars(int bus)
    {
        var high = 0x6000000000UL + ((ulong)bus << 32);
        var low = 0x80000000UL + ((ulong)bus << 25);
        return
        [
            (low, low + 0xffffff, 0x40200),
            (high, high + 0xfffffff, 0x14220c),
            (0, 0, 0),
            (high + 0x10000000, high + 0x11ffffff, 0x14220c),
            (0, 0, 0),
            (0x3000, 0x307f, 0x40101),
            (low + 0x1000000, low + 0x107ffff, 0x46200),
        ];
    }
}
