using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>A case's machine, and all who act on it besides us.</summary>
sealed class Stage
{
    static readonly TimeSpan _patience = TimeSpan.FromSeconds(1);

    readonly HostSpec _spec;
    readonly List<SimulatedProcess> _visitors = [];
    readonly HashSet<string> _services = [];

    public Stage(Case @case)
    {
        _spec = @case.Host;
        Kernel = Boot(@case.Host);
        foreach (var mess in @case.Messes)
            Make(mess);
        foreach (var holder in @case.Holders)
            Hold(holder);
    }

    public SimulatedKernel Kernel { get; }

    /// <summary>The display function of a card; null where the case has no such card.</summary>
    public PciAddress? AddressOf(int card) => card >= 0 && card < _spec.Cards.Length ? new(0, BusOf(card), 0, 0) : null;

    /// <summary>The functions of a card, by address.</summary>
    public IEnumerable<PciDevice> FunctionsOf(int card) =>
        AddressOf(card) is { } address ? Kernel.Devices.Where(d => d.Address.SharesSlotWith(address)) : [];

    static int BusOf(int card) => card + 1;

    static SimulatedKernel Boot(HostSpec spec)
    {
        var host = new HostBuilder();
        if (spec.WithIgpu)
            host.With(Hosts.IntelGraphics());
        for (var i = 0; i < spec.Cards.Length; i++)
            host.With(Hardware(spec.Cards[i], i, isBootVga: i == 0 && !spec.WithIgpu));
        var hasNvidia = spec.Cards.Any(c => c.Kind != CardKind.Amd);
        host.WithNvidiaDriver(new(spec.Version, spec.Modeset, spec.Fbdev, spec.DebianNames));
        if (spec.FirmwareConsole && spec.Cards[0].Kind != CardKind.Datacenter)
            host.WithFirmwareConsole(new PciAddress(0, BusOf(0), 0, 0).ToString());
        if (spec.NoIommu)
            host.WithoutIommu();
        if (spec.NoUnload)
            host.WithoutModuleUnload();
        if (spec.Vfio == Vfio.BuiltIn)
            host.WithBuiltIn("vfio", "vfio_pci_core", "vfio_pci", "vfio_iommu_type1");
        if (spec.Vfio == Vfio.Missing)
            host.WithoutModuleFile("vfio_pci");
        // The disk that the host lives on has its driver before anything else.
        host.Loading("nvme");
        if (!spec.BareSiblings)
            host.Loading("snd_hda_intel", "xhci_pci", "i2c_nvidia_gpu");
        if (spec.WithIgpu)
            host.Loading("i915");
        if (spec.Cards.Any(c => c.Kind == CardKind.Amd))
            host.Loading("amdgpu");
        if (hasNvidia)
            host.Loading(Modules(spec.Stack));
        return host.Boot();
    }

    static string[] Modules(Stack stack) => stack switch
    {
        Stack.All => ["nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm"],
        Stack.WithoutUvm => ["nvidia", "nvidia_modeset", "nvidia_drm"],
        Stack.WithoutDrm => ["nvidia", "nvidia_modeset", "nvidia_uvm"],
        Stack.DriverAndUvm => ["nvidia", "nvidia_uvm"],
        Stack.DriverOnly => ["nvidia"],
        Stack.Nouveau => ["nouveau"],
        _ => [],
    };

    static IEnumerable<PciHardware> Hardware(CardSpec card, int index, bool isBootVga)
    {
        var bus = BusOf(index);
        var group = 10 + (card.WithFirst ? BusOf(0) : bus);
        IEnumerable<PciHardware> parts = card.Kind switch
        {
            CardKind.FourFunctions =>
            [
                .. Hosts.Card(bus, isBootVga, 0x1f02, 0x10f9, "NVIDIA GeForce RTX 2070"),
                Hosts.Function(bus, 2, 0x1ada, 0x0c0330),
                Hosts.Function(bus, 3, 0x1adb, 0x0c8000),
            ],
            CardKind.Datacenter =>
            [
                Hosts.RootPort(bus),
                Hosts.Function(bus, 0, 0x2330, 0x030200) with { Model = "NVIDIA H100 80GB HBM3" },
            ],
            CardKind.Amd =>
            [
                Hosts.RootPort(bus),
                Hosts.Function(bus, 0, 0x744c, 0x030000) with { Vendor = 0x1002, BootVga = isBootVga },
                Hosts.Function(bus, 1, 0xab30, 0x040300) with { Vendor = 0x1002 },
            ],
            _ => Hosts.Card(bus, isBootVga),
        };
        foreach (var part in parts)
            yield return part.IommuGroup == 10 + bus ? part with { IommuGroup = group } : part;
        if (card.Stranger == Stranger.None)
            yield break;
        var far = bus + 0x10;
        yield return Hosts.RootPort(far);
        yield return card.Stranger == Stranger.Disk
            ? new(new(0, far, 0, 0), 0x144d, 0xa80a, 0x010802) { Behind = new(0, 0, far, 0), IommuGroup = group }
            : new(new(0, far, 0, 0), 0x1b21, 0x2142, 0x0c0330) { Behind = new(0, 0, far, 0), IommuGroup = group };
    }

    void Make(Mess mess) => Somebody(kernel =>
    {
        if (mess.Kind == MessKind.Unloaded)
        {
            // rmmod of a busy module waits for nobody: it fails.
            kernel.UnloadModule(mess.Text, _patience);
            return;
        }
        if (mess.Kind == MessKind.NodeGone)
        {
            kernel.RemoveNode(new(mess.Text));
            return;
        }
        if (FunctionsOf(mess.Card).ElementAtOrDefault(mess.Function) is not { } device)
            return;
        var path = Sys.Function(device.Address);
        switch (mess.Kind)
        {
            case MessKind.Override:
                kernel.Write(path / "driver_override", $"{mess.Text}\n", _patience);
                break;
            case MessKind.Unbound:
                Unbind(device, kernel);
                break;
            case MessKind.DynamicId:
                kernel.LoadModule("vfio-pci", [], _patience);
                kernel.Write(Sys.Driver(Owner.Vfio) / "new_id", $"{device.Hardware.Vendor:x4} {device.Hardware.Device:x4}", _patience);
                break;
            case MessKind.VfioKept or MessKind.VfioLoose when device.UsageCount == 0:
                kernel.LoadModule("vfio-pci", [], _patience);
                kernel.Write(path / "driver_override", "vfio-pci\n", _patience);
                Unbind(device, kernel);
                kernel.Write(Sys.Pci / "drivers_probe", device.Address.ToString(), _patience);
                if (mess.Kind == MessKind.VfioLoose)
                    kernel.Write(path / "driver_override", "\n", _patience);
                break;
        }
    });

    static void Unbind(PciDevice device, IKernel kernel)
    {
        if (device is { Driver: { } driver, UsageCount: 0 })
            kernel.Write(Sys.Driver(driver) / "unbind", device.Address.ToString(), _patience);
    }

    void Hold(Holder holder)
    {
        if (FunctionsOf(holder.Card).FirstOrDefault() is not { } gpu)
            return;
        var process = holder.Kind switch
        {
            HolderKind.Card => Open("python3", $"/dev/nvidia{MinorOf(gpu)}", "/dev/nvidiactl"),
            HolderKind.Control => Open("nvtop", "/dev/nvidiactl"),
            HolderKind.Modeset => Open("Xorg", "/dev/nvidia-modeset"),
            HolderKind.Uvm => Open("ollama", "/dev/nvidia-uvm"),
            HolderKind.UvmWithCard => OpenUvm(gpu),
            HolderKind.Drm => Open("kwin", DrmOf(gpu)),
            HolderKind.Sound => OpenSound(holder.Card),
            HolderKind.I2c => Open("ddcutil", I2cOf(gpu)),
            HolderKind.Vm => StartVm(holder.Card),
            HolderKind.Unreadable => Unreadable(Kernel.StartProcess("big")),
            HolderKind.UnreadableUser => Unreadable(Open("big", $"/dev/nvidia{MinorOf(gpu)}", "/dev/nvidiactl")),
            HolderKind.PathOnly => OpenPathOnly($"/dev/nvidia{MinorOf(gpu)}"),
            HolderKind.Service => StartService(holder.Card, gpu),
            HolderKind.Impostor => StartImpostor(Impostor.All[holder.Shape], gpu),
            _ => null,
        };
        IDisposable? kernelUser = null;
        if (gpu.Driver == "nvidia" && holder.Kind == HolderKind.Kernel)
            kernelUser = Kernel.UseInKernel(gpu.Address);
        if (gpu.Driver == "nvidia" && holder.Kind == HolderKind.Persistence)
            Kernel.SetLegacyPersistence(gpu.Address, on: true);
        if (holder.Seconds == 0)
            return;
        Kernel.Later(TimeSpan.FromSeconds(holder.Seconds), () =>
        {
            if (process is not null)
                Kernel.EndProcess(process);
            kernelUser?.Dispose();
        });
    }

    SimulatedProcess StartImpostor(Impostor impostor, PciDevice gpu)
    {
        if (Kernel.RunningProcesses.All(p => p.Name != "atd"))
            Impostor.Ground(Kernel);
        return impostor.Start(Kernel, pid: null, [.. ((string?[])[$"/dev/nvidia{MinorOf(gpu)}", "/dev/nvidiactl", "/dev/nvidia-uvm", DrmOf(gpu)]).OfType<string>()]);
    }

    static SimulatedProcess? Unreadable(SimulatedProcess? process)
    {
        process?.IsUnreadable = true;
        return process;
    }

    SimulatedProcess? OpenPathOnly(string node)
    {
        var process = Kernel.StartProcess("opath");
        try
        {
            Kernel.OpenPathOnly(node, process);
        }
        catch (KernelRefused)
        {
            // No such node.
        }
        return process;
    }

    /// <summary>It stays for as long as it is not stopped.</summary>
    SimulatedProcess? StartService(int card, PciDevice gpu)
    {
        var name = $"work{card}.service";
        if (MinorOf(gpu) is not null && _services.Add(name))
            Kernel.StartUnit(Kernel.AddUnitOn(gpu.Address, name, "worker"));
        return null;
    }

    /// <summary>A process opens the card, through a node that no step of ours takes away.</summary>
    public bool VisitDirectly(int card, int seconds) => FunctionsOf(card).FirstOrDefault() is { } gpu
        && Come(OpenNumber("visitor", new(195, (uint)(MinorOf(gpu) ?? card), 0x1b6, 100000, 100000)), seconds);

    /// <summary>A process plays a sound, and passes the descriptor on through a socket.</summary>
    public bool ListenHidden(int card, int seconds)
    {
        var player = OpenSound(card);
        foreach (var open in player?.Open.ToList() ?? [])
            open.PutInFlight();
        return Come(player, seconds);
    }

    SimulatedProcess? OpenNumber(string name, DeviceNode node)
    {
        try
        {
            var process = Kernel.StartProcess(name);
            Kernel.OpenNode(node, "/srv/gpu", process);
            return process;
        }
        catch (KernelRefused)
        {
            // Nothing behind it at this moment.
            return null;
        }
    }

    /// <summary>A poller comes by; whether it got hold of anything.</summary>
    public bool Visit(int card, int seconds) => FunctionsOf(card).FirstOrDefault() is { } gpu
        && Come(Open("nvidia-smi", "/dev/nvidiactl", $"/dev/nvidia{MinorOf(gpu) ?? card}"), seconds);

    /// <summary>Somebody plays a sound.</summary>
    public bool Listen(int card, int seconds) => Come(OpenSound(card), seconds);

    /// <summary>Somebody starts a VM with the card.</summary>
    public bool VmStarts(int card, int seconds) => Come(StartVm(card), seconds);

    public void Modprobe() => Somebody(kernel =>
    {
        foreach (var module in new[] { "nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm" })
            kernel.LoadModule(module, [], _patience);
    });

    /// <summary>nvidia-modprobe, as a udev rule runs it.</summary>
    public void MakeNodes()
    {
        foreach (var device in Kernel.Devices.Where(d => d.Driver == "nvidia").ToList())
            Put($"/dev/nvidia{MinorOf(device)}", (uint)MinorOf(device)!.Value);
        if (Kernel.Devices.Any(d => d.Driver == "nvidia"))
            Put("/dev/nvidiactl", 255);

        void Put(string path, uint minor) => Somebody(kernel => kernel.MakeNode(new(path), new(195, minor, 0x1b6, 0, 0)));
    }

    /// <summary>All who came during a errand leave; those of the beginning stay.</summary>
    public void SendVisitorsAway()
    {
        foreach (var visitor in _visitors.Where(Kernel.RunningProcesses.Contains))
            Kernel.EndProcess(visitor);
        _visitors.Clear();
    }

    bool Come(SimulatedProcess? visitor, int seconds)
    {
        if (visitor is null)
            return false;
        _visitors.Add(visitor);
        if (seconds > 0)
        {
            Kernel.Later(TimeSpan.FromSeconds(seconds), () =>
            {
                if (Kernel.RunningProcesses.Contains(visitor))
                    Kernel.EndProcess(visitor);
            });
        }
        return true;
    }

    SimulatedProcess? Open(string name, params string?[] paths)
    {
        SimulatedProcess? process = null;
        foreach (var path in paths.OfType<string>())
        {
            try
            {
                process ??= Kernel.StartProcess(name);
                Kernel.OpenNode(path, process);
            }
            catch (KernelRefused)
            {
                // No such node, or nobody behind it: then there is nothing to hold.
            }
        }
        return process;
    }

    SimulatedProcess? OpenUvm(PciDevice gpu)
    {
        var process = Open("ollama", "/dev/nvidia-uvm");
        if (process is { Open: [var uvm] } && gpu.Driver == "nvidia")
            Kernel.RegisterWithUvm(uvm, gpu.Address);
        return process;
    }

    SimulatedProcess? OpenSound(int card) => FunctionsOf(card).FirstOrDefault(f => f.Driver == "snd_hda_intel") is { } audio
        ? Open("pipewire", Kernel.List(Sys.Function(audio.Address) / "sound")
            .Select(name => $"/dev/snd/control{name.Replace("card", "C", StringComparison.Ordinal)}").FirstOrDefault())
        : null;

    SimulatedProcess? StartVm(int card)
    {
        try
        {
            var functions = FunctionsOf(card).Where(f => f.Driver == Owner.Vfio).Select(f => f.Address).ToList();
            return functions is [] ? null : Kernel.StartVm("vm", functions).Process;
        }
        catch (KernelRefused)
        {
            // Its group is not viable, or another VM has it.
            return null;
        }
    }

    int? MinorOf(PciDevice gpu) => NvidiaProc.Information(
        Kernel.Read(Sys.Proc / $"driver/nvidia/gpus/{gpu.Address}/information") ?? "").Minor;

    string? DrmOf(PciDevice gpu) => Kernel.List(Sys.Function(gpu.Address) / "drm").Select(name => $"/dev/dri/{name}").FirstOrDefault();

    string? I2cOf(PciDevice gpu) => Kernel.List(Sys.Function(gpu.Address))
        .Where(name => name.StartsWith("i2c-", StringComparison.Ordinal)).Select(name => $"/dev/{name}").FirstOrDefault();

    void Somebody(Action<IKernel> act)
    {
        try
        {
            Kernel.Elsewhere(act);
        }
        catch (Exception refused) when (refused is KernelRefused or KernelSilent)
        {
            // Others meet with refusals, too.
        }
    }
}
