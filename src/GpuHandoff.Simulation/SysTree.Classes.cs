using GpuHandoff.Kernel;

namespace GpuHandoff.Simulation;

/// <summary>/sys/class, /sys/module and /sys/kernel/iommu_groups: the same devices, sorted by another question.</summary>
sealed partial class SysTree
{
    // ---- /sys/class ----

    IEnumerable<(string, Entry)> Classes() =>
    [
        ("drm", Dir(() => kernel.Drm.Cards.SelectMany(card => ((string[])[card.Name, card.RenderName]).Select(name =>
            (name, (Entry)new LinkTo($"../../devices/{PathOf(card.Device)}/drm/{name}")))))),
        ("graphics", Dir(() => kernel.Consoles.Framebuffers.Select(fb => ($"fb{fb.Index}", (Entry)new LinkTo(FramebufferPath(fb)))))),
        ("i2c-adapter", Dir(() => Adapters("../../"))),
        ("i2c-dev", Dir(() => Adapters("../../"))),
        ("iommu", Dir(() => kernel.Bus.Devices.Any(device => device.Hardware.IommuGroup is not null)
            ? [("dmar0", Dir(static () => []))] : [])),
        ("pci_bus", Dir(PciBuses)),
        ("sound", Dir(() => kernel.Bus.Devices.Where(device => device.SoundCard is not null).Select(device =>
            ($"card{device.SoundCard}", (Entry)new LinkTo($"../../devices/{PathOf(device)}/sound/card{device.SoundCard}"))))),
        ("vtconsole", Dir(() => ConsoleNames().Select(name => (name, (Entry)new LinkTo($"../../devices/virtual/vtconsole/{name}"))))),
    ];

    IEnumerable<(string, Entry)> PciBuses() =>
        kernel.Bus.Buses().Select(bus =>
            ($"{bus.Domain:x4}:{bus.Bus:x2}", (Entry)Dir(() =>
                [("rescan", WriteOnly(text => kernel.Bus.Rescan(slot => kernel.Bus.IsOnBus(slot, bus.Domain, bus.Bus), text)))])));

    IEnumerable<(string, Entry)> Adapters(string up) => kernel.Bus.Devices.Where(device => device.I2cAdapter is not null).Select(device =>
        ($"i2c-{device.I2cAdapter}", (Entry)new LinkTo($"{up}devices/{PathOf(device)}/i2c-{device.I2cAdapter}")));

    // ---- consoles ----

    IEnumerable<string> ConsoleNames() => kernel.Consoles.HasFbcon ? ["vtcon0", "vtcon1"] : ["vtcon0"];

    IEnumerable<(string, Entry)> Console(string name) =>
    [
        ("name", Text(() => name == "vtcon0" ? "(S) dummy device" : "(M) frame buffer device")),
        ("bind", Text(() => (name == "vtcon1") == kernel.Consoles.FbconBound ? "1" : "0", text => kernel.Consoles.Bind(name, text))),
    ];

    static IEnumerable<(string, Entry)> Framebuffer(Framebuffer fb) =>
    [
        ("name", Text(() => fb.Name)),
        // Two up from graphics/fbN: the PCI function for DRM, the platform device for the firmware's.
        ("device", new LinkTo(fb switch
        {
            { Device: null } => $"../../../platform/{FirmwareDevice(fb)}",
            { IsFirmware: true } => $"../../../{FirmwareDevice(fb)}",
            _ => $"../../../{fb.Device.Address}",
        })),
    ];

    string FramebufferPath(Framebuffer fb) => fb switch
    {
        { Device: null } => $"../../devices/virtual/graphics/fb{fb.Index}",
        { IsFirmware: true } => $"../../devices/{PathOf(fb.Device)}/{FirmwareDevice(fb)}/graphics/fb{fb.Index}",
        _ => $"../../devices/{PathOf(fb.Device)}/graphics/fb{fb.Index}",
    };

    static string FirmwareDevice(Framebuffer fb) => fb.Name == "EFI VGA" ? "efi-framebuffer.0" : "simple-framebuffer.0";

    /// <summary>drivers/firmware/sysfb.c: the firmware's framebuffer can be unbound by hand, and then never bound again.</summary>
    IEnumerable<(string, Entry)> PlatformDrivers() =>
        ((string[])["efi-framebuffer", "simple-framebuffer"]).Select(driver => (driver, (Entry)Dir(() =>
        [
            ("bind", WriteOnly(static _ => throw new Refusal(Errno.NoDevice))),
            ("unbind", WriteOnly(text => kernel.Consoles.Remove(kernel.Consoles.Framebuffers.FirstOrDefault(fb =>
                fb.IsFirmware && FirmwareDevice(fb) == text.TrimEnd('\n') && text.StartsWith(driver, StringComparison.Ordinal))
                ?? throw new Refusal(Errno.NoDevice)))),
        ])));

    // ---- modules and groups ----

    IEnumerable<(string, Entry)> ModuleFolders()
    {
        foreach (var file in kernel.Modules.BuiltIn)
            yield return (file.Module, Dir(() => [("uevent", new TextFile(static () => null))]));
        foreach (var module in kernel.Modules.Loaded)
            yield return (module.File.Module, Dir(() => ModuleFolder(module)));
    }

    IEnumerable<(string, Entry)> ModuleFolder(LoadedModule module)
    {
        yield return ("holders", Dir(() => kernel.Modules.DependantsOf(module).Select(other =>
            (other.File.Module, (Entry)new LinkTo($"../../{other.File.Module}")))));
        yield return ("initstate", Text(() => module.State));
        if (module.Parameters.Count > 0)
        {
            yield return ("parameters", Dir(() => module.Parameters.Select(parameter =>
                (parameter.Key, (Entry)Text(() => parameter.Value)))));
        }
        if (!kernel.Modules.CannotUnload)
            yield return ("refcnt", Text(() => (module.State == "going" ? -1 : kernel.Modules.RefCount(module)).ToString()));
        yield return ("taint", Text(() => module.File.Taint));
        if (module.File.Version is { } version)
            yield return ("version", Text(() => version));
    }

    IEnumerable<(string, Entry)> IommuGroups() =>
        kernel.Bus.Devices.Where(device => device.Hardware.IommuGroup is not null).GroupBy(device => device.Hardware.IommuGroup).Select(group =>
            ($"{group.Key}", (Entry)Dir(() =>
            [
                ("devices", Dir(() => group.Select(device =>
                    (device.Address.ToString(), (Entry)new LinkTo($"../../../../devices/{PathOf(device)}"))))),
                ("reserved_regions", Text(static () => "0x00000000fee00000 0x00000000feefffff msi")),
                ("type", Text(static () => "identity")),
            ])));
}
