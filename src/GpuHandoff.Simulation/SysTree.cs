using System.Buffers.Binary;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Simulation;

/// <summary>/sys, made from the models (drivers/pci/pci-sysfs.c, drivers/base/bus.c, kernel/module/sysfs.c).</summary>
sealed partial class SysTree(SimulatedKernel kernel)
{
    public Folder Root => Dir(() =>
    [
        ("bus", Dir(() =>
        [
            ("pci", Dir(BusPci)),
            ("i2c", Dir(() => [("devices", Dir(() => Adapters("../../../")))])),
            ("platform", Dir(() => [("devices", Dir(PlatformDevices)), ("drivers", Dir(PlatformDrivers))])),
        ])),
        ("class", Dir(Classes)),
        ("devices", Dir(() => [.. DeviceRoots(), ("system", Dir(() => [("cpu", Dir(() => [("online", Text(() => CpuList.Say(kernel.OnlineProcessors)))]))]))])),
        ("fs", Dir(() => [("cgroup", Dir(() => [("lxc", Dir(() => kernel.Containers.Groups))]))])),
        ("kernel", Dir(() => [("iommu_groups", Dir(IommuGroups))])),
        ("module", Dir(ModuleFolders)),
    ]);

    /// <summary>A file of the hand-over's protocol: where it is not there, the kernel says ENOENT and nobody is surprised.</summary>
    public static bool IsKnownWrite(string path) => path.Split('/') switch
    {
        ["", "sys", "bus", "pci", "drivers", _, "bind" or "unbind" or "new_id" or "remove_id"] => true,
        ["", "sys", "bus", "pci", "devices", _, "driver", "unbind" or "bind"] => true,
        ["", "sys", "bus", "pci", "devices", _, "power", "control"] => true,
        ["", "sys", "bus", "pci", "devices", _,
            "driver_override" or "remove" or "rescan" or "reset" or "reset_method" or "reset_subordinate" or "d3cold_allowed"
                or "resource1_resize"] => true,
        ["", "sys", "class", "pci_bus", _, "rescan"] => true,
        ["", "sys", "class", "vtconsole", _, "bind"] => true,
        ["", "sys", "class", "graphics", "fbcon", "rotate"] => true,
        ["", "sys", "bus", "platform", "drivers", _, "bind" or "unbind"] => true,
        _ => false,
    };

    public static bool TakesDeviceLock(string path) =>
        path[(path.LastIndexOf('/') + 1)..] is "bind" or "unbind" or "drivers_probe" or "remove" or "reset" or "control"
            or "resource1_resize"
        && path.StartsWith("/sys/bus/pci/", StringComparison.Ordinal);

    // ---- /sys/bus/pci ----

    IEnumerable<(string, Entry)> BusPci() =>
    [
        ("devices", Dir(() => kernel.Bus.Devices.Select(device =>
            (device.Address.ToString(), (Entry)new LinkTo($"../../../devices/{PathOf(device)}"))))),
        ("drivers", Dir(() => kernel.Bus.Drivers.Select(driver => (driver.Name, (Entry)Dir(() => DriverFolder(driver)))))),
        ("drivers_autoprobe", Text(static () => "1")),
        ("drivers_probe", WriteOnly(kernel.Bus.DriversProbe)),
        ("rescan", WriteOnly(text => kernel.Bus.Rescan(static _ => true, text))),
    ];

    IEnumerable<(string, Entry)> DriverFolder(PciDriver driver)
    {
        yield return ("bind", WriteOnly(text => kernel.Bus.Bind(driver, text)));
        yield return ("new_id", WriteOnly(text => kernel.Bus.AddId(driver, text)));
        yield return ("remove_id", WriteOnly(text => PciBus.RemoveId(driver, text)));
        yield return ("uevent", new TextFile(static () => null));
        yield return ("unbind", WriteOnly(text => kernel.Bus.Unbind(driver, text)));
        if (driver.Module is { } module)
            yield return ("module", new LinkTo($"../../../../module/{module}"));
        foreach (var device in kernel.Bus.Devices.Where(device => device.Bound == driver))
            yield return (device.Address.ToString(), new LinkTo($"../../../../devices/{PathOf(device)}"));
    }

    // ---- /sys/devices ----

    IEnumerable<(string, Entry)> DeviceRoots()
    {
        foreach (var domain in kernel.Bus.Devices.Where(IsOnTop).GroupBy(device => RootOf(device)))
            yield return (domain.Key, Dir(() => domain.Select(device => (device.Address.ToString(), (Entry)Dir(() => Function(device))))));
        yield return ("virtual", Dir(() =>
        [
            ("vtconsole", Dir(() => kernel.Consoles.Drivers().Select(driver => (driver.Number, (Entry)Dir(() => Console(driver)))))),
            ("graphics", Dir(() => [("fbcon", Dir(() => [("rotate", Text(static () => "0", kernel.Consoles.Rotate))]))])),
        ]));
        yield return ("platform", Dir(() => kernel.Consoles.Firmware is { IsBelow: false } picture
            ? [(picture.Name, Dir(() => Picture(picture)))] : []));
    }

    IEnumerable<(string, Entry)> Function(PciDevice device)
    {
        var hardware = device.Hardware;
        yield return ("class", Text(() => $"0x{hardware.Class:x6}"));
        // drivers/pci/access.c: where nothing answers any more, all bits are ones.
        yield return ("config", new TextFile(static () => null) { Bytes = () => Config(device) });
        yield return ("d3cold_allowed", Text(() => device.D3ColdAllowed ? "1" : "0", text => device.D3ColdAllowed = ZeroOrOne(text)));
        yield return ("device", Text(() => Hex(hardware.Device)));
        if (device.Driver is { } driver)
            yield return ("driver", new LinkTo($"{Up(device)}bus/pci/drivers/{driver}"));
        yield return ("driver_override", Text(() => device.Override ?? "(null)", text => kernel.Bus.SetOverride(device, text)));
        if (kernel.Drm.Of(device).ToList() is { Count: > 0 } cards)
            yield return ("drm", Dir(() => cards.SelectMany(card => CardFolders(device, card))));
        yield return ("enable", Text(() => device.Driver is null ? "0" : "1"));
        if (kernel.Consoles.Framebuffers.Where(fb => fb.Device.Address == device.Address && !fb.IsFirmware).ToList() is { Count: > 0 } screens)
            yield return ("graphics", Dir(() => screens.Select(fb => ($"fb{fb.Index}", (Entry)Dir(() => Framebuffer(fb))))));
        if (kernel.Consoles.Firmware is { IsBelow: true } picture && picture.Device.Address == device.Address)
            yield return (picture.Name, Dir(() => Picture(picture)));
        if (hardware.IsVga)
            yield return ("boot_vga", Text(() => hardware.BootVga ? "1" : "0"));
        if (device.I2cAdapter is { } adapter)
            yield return ($"i2c-{adapter}", Dir(() => Adapter(device)));
        if (hardware.IommuGroup is { } group)
            yield return ("iommu_group", new LinkTo($"{Up(device)}kernel/iommu_groups/{group}"));
        yield return ("irq", Text(static () => "16"));
        yield return ("modalias", Text(() => hardware.Modalias));
        // kernel-open/nvidia/nv.c: MSI is on from the first open to the last close, and in legacy persistence.
        if (device.Driver == "nvidia" ? device.UsageCount > 0 || device.Persistent : device.Driver is not null && device.VfioUsers > 0)
            yield return ("msi_irqs", Dir(() => [((130 + hardware.Address.Bus).ToString(), Text(static () => "msi"))]));
        yield return ("numa_node", Text(() => hardware.NumaNode.ToString()));
        yield return ("power", Dir(() =>
        [
            ("control", Text(() => device.PowerControl, text => SetPowerControl(device, text))),
            ("runtime_status", Text(() => PowerState(device) == "D3hot" ? "suspended" : "active")),
        ]));
        yield return ("power_state", Text(() => PowerState(device)));
        yield return ("remove", WriteOnly(text => kernel.Bus.RemoveFromBus(device, text)));
        yield return ("rescan", WriteOnly(text => kernel.Bus.Rescan(
            slot => kernel.Bus.IsOnBus(slot, hardware.Address.Domain, hardware.Address.Bus), text)));
        if (hardware.ResetMethods.Count > 0)
        {
            yield return ("reset", WriteOnly(text => kernel.Bus.Reset(device, text)));
            yield return ("reset_method", Text(() => string.Join(' ', device.ResetMethods), text => PciBus.SetResetMethod(device, text)));
        }
        if (hardware.IsBridge)
            yield return ("reset_subordinate", WriteOnly(text => kernel.Bus.ResetBelow(device, text)));
        yield return ("resource", Text(() => Resources(device)));
        foreach (var (bar, mask) in hardware.BarSizes)
            yield return ($"resource{bar}_resize", Text(() => $"{mask:x16}", text => kernel.Bus.ResizeBar(device, bar, text)));
        yield return ("revision", Text(() => $"0x{hardware.Revision:x2}"));
        if (device.SoundCard is { } card0)
        {
            // sound/core/init.c: the card's devices are folders below it, named like their nodes in /dev/snd.
            yield return ("sound", Dir(() => [($"card{card0}", Dir(() =>
            [
                ($"controlC{card0}", Dir(() => [])), ("device", new LinkTo($"../../../{hardware.Address}")),
                ("id", Text(static () => "NVidia")), ($"pcmC{card0}D3p", Dir(() => [])),
                ($"input{Catalogue.JackEvent(card0) + 5}", Dir(() => [($"event{Catalogue.JackEvent(card0)}", Dir(() => []))])),
            ]))]));
        }
        yield return ("subsystem", new LinkTo($"{Up(device)}bus/pci"));
        yield return ("subsystem_device", Text(() => Hex(hardware.SubsystemDevice)));
        yield return ("subsystem_vendor", Text(() => Hex(hardware.SubsystemVendor)));
        if (device.Driver == "xhci_hcd")
            yield return ("usb3", Dir(() => RootHub(hardware)));
        // drivers/pci/pci-sysfs.c:pci_config_attr: what was read at enumeration, whatever has become of the device.
        yield return ("vendor", Text(() => Hex(hardware.Vendor)));
        foreach (var child in kernel.Bus.Devices.Where(child => child.Hardware.Behind == hardware.Address))
            yield return (child.Address.ToString(), Dir(() => Function(child)));
    }

    static IEnumerable<(string, Entry)> CardFolders(PciDevice device, DrmCard card) =>
        ((string[])[card.Name, card.RenderName]).Select(name =>
            (name, (Entry)Dir(() => [("device", new LinkTo($"../../../{device.Address}"))])));

    /// <summary>drivers/usb/core/usb.c:usb_alloc_dev: a hub's devices are folders in its own.</summary>
    static IEnumerable<(string, Entry)> RootHub(PciHardware hardware) =>
    [
        ("3-0:1.0", Dir(() => [])),
        ("bDeviceClass", Text(static () => "09")),
        ("product", Text(static () => "xHCI Host Controller")),
        .. hardware.UsbDevices.Select((product, port) => ($"3-{port + 1}", (Entry)Dir(() =>
        [
            ($"3-{port + 1}:1.0", Dir(() => [])),
            ("bDeviceClass", Text(static () => "00")),
            ("product", Text(() => product)),
        ]))),
    ];

    static IEnumerable<(string, Entry)> Adapter(PciDevice device) =>
    [
        ("name", Text(() => $"NVIDIA i2c adapter 1 at {device.Address.Bus:x}:{device.Address.Device:x2}.{device.Address.Function:x}")),
        ("device", new LinkTo($"../../{device.Address}")),
    ];

    void SetPowerControl(PciDevice device, string text)
    {
        // drivers/base/power/sysfs.c:control_store takes the device lock.
        kernel.TakeLock(device);
        device.PowerControl = text.TrimEnd('\n') is "auto" or "on" ? text.TrimEnd('\n') : throw new Refusal(Errno.Invalid);
    }

    /// <summary>drivers/vfio/pci: idle is D3hot where runtime PM may; unknown after a driver let go.</summary>
    string PowerState(PciDevice device) => device switch
    {
        { Driver: null, WasBound: true } => "unknown",
        { Driver: "vfio-pci", VfioUsers: 0, PowerControl: "auto" } when VfioIdles() => "D3hot",
        _ => "D0",
    };

    bool VfioIdles() => kernel.Modules.Find("vfio_pci")?.Parameters["disable_idle_d3"] is "N" or "0";

    static byte[] Config(PciDevice device)
    {
        var bytes = new byte[64];
        Array.Fill(bytes, (byte)0xff, 0, device.Lost ? bytes.Length : 0);
        if (!device.Lost)
        {
            BinaryPrimitives.WriteUInt16LittleEndian(bytes, (ushort)device.Hardware.Vendor);
            BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(2), (ushort)device.Hardware.Device);
        }
        return bytes;
    }

    static string Resources(PciDevice device)
    {
        var lines = device.Resources.Concat(Enumerable.Repeat((Start: 0UL, End: 0UL, Flags: 0UL), 13)).Take(13);
        return string.Join('\n', lines.Select(line => $"0x{line.Start:x16} 0x{line.End:x16} 0x{line.Flags:x16}"));
    }

    bool IsOnTop(PciDevice device) => device.Hardware.Behind is not { } up || kernel.Bus.Find(up) is null;

    static string RootOf(PciDevice device) => $"pci{device.Address.Domain:x4}:00";

    string PathOf(PciDevice device) => IsOnTop(device)
        ? $"{RootOf(device)}/{device.Address}"
        : $"{PathOf(kernel.Bus.Find(device.Hardware.Behind!.Value)!)}/{device.Address}";

    string Up(PciDevice device) => string.Concat(Enumerable.Repeat("../", PathOf(device).Count(letter => letter == '/') + 2));

    // ---- small things ----

    static Folder Dir(Func<IEnumerable<(string, Entry)>> children) => new(children);

    static TextFile Text(Func<string?> read, Action<string>? write = null) => new(read, write);

    static TextFile WriteOnly(Action<string> write) => new(static () => null, write);

    static string Hex(int value) => $"0x{value:x4}";

    static bool ZeroOrOne(string text) => text.TrimEnd('\n') switch
    {
        "1" => true,
        "0" => false,
        _ => throw new Refusal(Errno.Invalid),
    };
}
