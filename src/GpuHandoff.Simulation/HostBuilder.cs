using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>Puts a machine together, reads like its description, and boots it.</summary>
public sealed class HostBuilder
{
    readonly List<PciHardware> hardware = [];
    readonly List<string> loaded = [];
    readonly List<string> withoutFiles = [];
    readonly List<string> builtIn = [];
    readonly List<(string Module, string Text)> options = [];
    readonly List<(string Address, string Driver)> overrides = [];
    readonly List<Action<SimulatedKernel>> afterBoot = [];
    DriverOption driver = new();
    bool hasNvidia;
    bool iommu = true;
    bool canUnload = true;
    (string Kind, string Gpu, bool Below)? firmware;
    bool vgaText;

    public HostBuilder With(params IEnumerable<PciHardware> functions)
    {
        hardware.AddRange(functions);
        return this;
    }

    /// <summary>NVIDIA's modules lie in /lib/modules, and nvidia_drm's parameters in modprobe.d.</summary>
    public HostBuilder WithNvidiaDriver(DriverOption option)
    {
        ArgumentNullException.ThrowIfNull(option);
        (driver, hasNvidia) = (option, true);
        if (option.Modeset is { } modeset)
            WithModprobeOption("nvidia_drm", $"modeset={(modeset ? "Y" : "N")}");
        if (option.Fbdev is { } fbdev)
            WithModprobeOption("nvidia_drm", $"fbdev={(fbdev ? "Y" : "N")}");
        return this;
    }

    /// <summary>Loaded at boot, in this order.</summary>
    public HostBuilder Loading(params IEnumerable<string> modules)
    {
        loaded.AddRange(modules);
        return this;
    }

    /// <summary>A line of modprobe.d: <c>options nvidia_drm modeset=1</c>.</summary>
    public HostBuilder WithModprobeOption(string module, string text)
    {
        options.Add((module, text));
        return this;
    }

    public HostBuilder WithoutModuleFile(params IEnumerable<string> modules)
    {
        withoutFiles.AddRange(modules);
        return this;
    }

    /// <summary>In the kernel itself: a folder in /sys/module at most, and nothing to load or unload.</summary>
    public HostBuilder WithBuiltIn(params IEnumerable<string> modules)
    {
        builtIn.AddRange(modules);
        return this;
    }

    public HostBuilder WithoutIommu()
    {
        iommu = false;
        return this;
    }

    /// <summary>A kernel without CONFIG_MODULE_UNLOAD: /proc/modules has "-" for counts, and nothing can be unloaded.</summary>
    public HostBuilder WithoutModuleUnload()
    {
        canUnload = false;
        return this;
    }

    /// <summary>The firmware's picture (<see cref="FirmwarePicture.Kind"/>) on a GPU; the console is on it.</summary>
    /// <param name="below">Whether its device tells which card it is on.</param>
    public HostBuilder WithFirmwareConsole(string gpu, string kind = "EFI VGA", bool below = true)
    {
        firmware = (kind, gpu, below);
        return this;
    }

    /// <summary>Booted by a BIOS, and the console is the boot card's VGA text mode.</summary>
    public HostBuilder WithVgaText()
    {
        vgaText = true;
        return this;
    }

    /// <summary>An override that was there before any module was loaded (an initramfs script, driverctl).</summary>
    public HostBuilder WithOverride(string address, string to)
    {
        overrides.Add((address, to));
        return this;
    }

    /// <summary>What user space does at the end of the boot: services, containers, nvidia-smi.</summary>
    public HostBuilder Then(Action<SimulatedKernel> act)
    {
        afterBoot.Add(act);
        return this;
    }

    public SimulatedKernel Boot()
    {
        var kernel = new SimulatedKernel(driver);
        kernel.Modules.CannotUnload = !canUnload;
        if (!iommu)
            kernel.CommandLine = kernel.CommandLine.Replace(" intel_iommu=on iommu=pt", "");
        foreach (var function in hardware)
            kernel.Bus.Plug(iommu ? function : function with { IommuGroup = null });
        foreach (var (address, to) in overrides)
            kernel.Device(address).Override = to;
        kernel.Consoles.HasVgaText = vgaText;
        if (firmware is var (kind, gpu, below))
            kernel.Consoles.Boot(new(kind, kernel.Device(gpu), below));

        var files = Catalogue.Host(kernel).Concat(Catalogue.Vfio(kernel));
        if (hasNvidia)
            files = files.Concat(Catalogue.Nvidia(kernel, kernel.Nvidia));
        foreach (var file in files.Where(file => !withoutFiles.Contains(file.Module)).ToList())
            kernel.Modules.Add(builtIn.Contains(file.Module) ? file with { BuiltIn = true } : file);
        foreach (var (module, text) in options)
        {
            if (!kernel.Modules.Options.TryGetValue(module, out var list))
                kernel.Modules.Options.Add(module, list = []);
            list.Add(text);
        }
        foreach (var module in loaded)
            kernel.Modules.Load(module, []);
        if (kernel.Modules.Find("nvidia") is not null)
            MakeNvidiaNodes(kernel);
        afterBoot.ForEach(act => act(kernel));
        return kernel;
    }

    /// <summary>What nvidia-modprobe makes: plain nodes, which stay whatever becomes of the modules.</summary>
    static void MakeNvidiaNodes(SimulatedKernel kernel)
    {
        foreach (var device in kernel.Bus.Devices.Where(device => device.Minor is not null))
            kernel.Nodes.Put($"/dev/nvidia{device.Minor}", Node(195, device.Minor!.Value));
        kernel.Nodes.Put("/dev/nvidiactl", Node(195, 255));
        if (kernel.Modules.Find("nvidia_modeset") is not null)
            kernel.Nodes.Put("/dev/nvidia-modeset", Node(195, 254));
        if (kernel.Modules.Find("nvidia_uvm") is null)
            return;
        kernel.Nodes.Put("/dev/nvidia-uvm", Node(kernel.UvmMajor, 0));
        kernel.Nodes.Put("/dev/nvidia-uvm-tools", Node(kernel.UvmMajor, 1));

        static DeviceNode Node(int major, int minor) => new((uint)major, (uint)minor, 0x1b6, 0, 0);
    }
}
