namespace GpuHandoff.Simulation;

/// <summary>/sys/class, /sys/module and /sys/kernel/iommu_groups: the same devices, sorted by another question.</summary>
sealed partial class SysTree
{
    // ---- /sys/class ----

    IEnumerable<(string, Entry)> Classes() =>
    [
        ("drm", Dir(() => kernel.Drm.Cards.SelectMany(card => ((string[])[card.Name, card.RenderName]).Select(name =>
            (name, (Entry)new LinkTo($"../../devices/{PathOf(card.Device)}/drm/{name}"))))
            .Concat(kernel.Drm.PlatformCards.Select(index =>
                ($"card{index}", (Entry)new LinkTo($"../../devices/{PathOf(kernel.Consoles.Firmware!)}/drm/card{index}")))))),
        ("graphics", Dir(() => kernel.Consoles.Framebuffers.Select(fb => ($"fb{fb.Index}", (Entry)new LinkTo(FramebufferPath(fb))))
            .Append(("fbcon", new LinkTo("../../devices/virtual/graphics/fbcon"))))),
        ("i2c-adapter", Dir(() => Adapters("../../"))),
        ("i2c-dev", Dir(() => Adapters("../../"))),
        ("iommu", Dir(() => kernel.Bus.Devices.Any(device => device.Hardware.IommuGroup is not null)
            ? [("dmar0", Dir(static () => []))] : [])),
        ("pci_bus", Dir(PciBuses)),
        ("sound", Dir(() => kernel.Bus.Devices.Where(device => device.SoundCard is not null).Select(device =>
            ($"card{device.SoundCard}", (Entry)new LinkTo($"../../devices/{PathOf(device)}/sound/card{device.SoundCard}"))))),
        ("vtconsole", Dir(() => kernel.Consoles.Drivers().Select(driver =>
            (driver.Number, (Entry)new LinkTo($"../../devices/virtual/vtconsole/{driver.Number}"))))),
    ];

    IEnumerable<(string, Entry)> PciBuses() =>
        kernel.Bus.Buses().Select(bus =>
            ($"{bus.Domain:x4}:{bus.Bus:x2}", (Entry)Dir(() =>
                [("rescan", WriteOnly(text => kernel.Bus.Rescan(slot => kernel.Bus.IsOnBus(slot, bus.Domain, bus.Bus), text)))])));

    IEnumerable<(string, Entry)> Adapters(string up) => kernel.Bus.Devices.Where(device => device.I2cAdapter is not null).Select(device =>
        ($"i2c-{device.I2cAdapter}", (Entry)new LinkTo($"{up}devices/{PathOf(device)}/i2c-{device.I2cAdapter}")));

    // ---- consoles ----

    IEnumerable<(string, Entry)> Console((string Number, string Name, bool Bound) driver) =>
    [
        ("name", Text(() => driver.Name)),
        ("bind", Text(() => driver.Bound ? "1" : "0", text => kernel.Consoles.Bind(driver.Number, text))),
    ];

    static IEnumerable<(string, Entry)> Framebuffer(Framebuffer fb) =>
    [
        ("name", Text(() => fb.Name)),
        // Two up from graphics/fbN: the PCI function.
        ("device", new LinkTo($"../../../{fb.Device.Address}")),
    ];

    /// <summary>The firmware's platform device, with what its driver made of it.</summary>
    IEnumerable<(string, Entry)> Picture(FirmwarePicture picture)
    {
        if (picture.Card is { } card)
            yield return ("drm", Dir(() => [($"card{card}", Dir(() => [("device", new LinkTo($"../../../{picture.Name}"))]))]));
        if (kernel.Consoles.Framebuffers.FirstOrDefault(fb => fb.IsFirmware) is { } fb)
        {
            yield return ("graphics", Dir(() => [($"fb{fb.Index}", Dir(() =>
                [("name", Text(() => fb.Name)), ("device", new LinkTo($"../../../{picture.Name}"))]))]));
        }
    }

    string PathOf(FirmwarePicture picture) => picture.IsBelow ? $"{PathOf(picture.Device)}/{picture.Name}" : $"platform/{picture.Name}";

    string FramebufferPath(Framebuffer fb) =>
        $"../../devices/{(fb.IsFirmware ? PathOf(kernel.Consoles.Firmware!) : PathOf(fb.Device))}/graphics/fb{fb.Index}";

    IEnumerable<(string, Entry)> PlatformDevices() => kernel.Consoles.Firmware is { } picture
        ? [(picture.Name, new LinkTo($"../../../devices/{PathOf(picture)}"))] : [];

    IEnumerable<(string, Entry)> PlatformDrivers() =>
        ((string[])["efi-framebuffer", "simple-framebuffer", "vesa-framebuffer"]).Select(driver => (driver, (Entry)Dir(() => PlatformDriver(driver))));

    IEnumerable<(string, Entry)> PlatformDriver(string driver)
    {
        yield return ("bind", WriteOnly(text => kernel.Consoles.BindFirmware(driver, text)));
        yield return ("unbind", WriteOnly(text => kernel.Consoles.UnbindFirmware(driver, text)));
        if (kernel.Consoles.Firmware is { Bound: true } picture && picture.Driver == driver)
            yield return (picture.Name, new LinkTo($"../../../../devices/{PathOf(picture)}"));
    }

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
