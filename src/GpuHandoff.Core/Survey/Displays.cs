using System.Collections.Immutable;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>Reads what shows the kernel's terminals: console drivers, frame buffers, and the firmware's picture.</summary>
public static class Displays
{
    // drivers/firmware/sysfb.c:sysfb_init. Their drivers: simplefb or simpledrm, efifb or efidrm, vesafb or vesadrm.
    static readonly string[] _firmware = ["simple-framebuffer", "efi-framebuffer", "vesa-framebuffer"];

    public static ImmutableArray<VtConsole> Consoles(IKernel kernel) =>
    [
        .. from number in kernel.List(Sys.VtConsoles)
           let name = kernel.Read(Sys.VtConsoles / number / "name")
           where name is not null
           select new VtConsole(number, name, kernel.Read(Sys.VtConsoles / number / "bind") == "1"),
    ];

    /// <summary>The frame buffers as sysfs alone tells of them: the firmware's by their platform device.</summary>
    public static ImmutableArray<FrameBuffer> FrameBuffers(IKernel kernel) =>
    [
        .. from name in kernel.List(Sys.Graphics)
           where name.StartsWith("fb", StringComparison.Ordinal) && name != "fbcon"
           let device = LastPart(kernel.Link(Sys.Graphics / name / "device"))
           select new FrameBuffer(name, kernel.Read(Sys.Graphics / name / "name") ?? "", Address(device))
           {
               Firmware = device is not null && _firmware.Any(f => device.StartsWith(f, StringComparison.Ordinal)) ? device : null,
           },
    ];

    /// <summary>Whether a driver has the firmware's display; null: there is no such device any more.</summary>
    public static bool? IsBound(FirmwareDisplay display, IKernel kernel) =>
        kernel.Exists(Sys.Platform / "drivers" / display.Driver / display.Device) ? true
        : kernel.Exists(Sys.Platform / "devices" / display.Device) ? false : null;

    /// <summary>The machine with its frame buffers, each with its card, and with the firmware's displays.</summary>
    public static Machine Add(Machine machine, IKernel kernel)
    {
        var bound = from driver in _firmware
                    from name in kernel.List(Sys.Platform / "drivers" / driver)
                    where name.StartsWith(driver, StringComparison.Ordinal)
                    // ../../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0/efi-framebuffer.0, or …/devices/platform/…
                    select new FirmwareDisplay(name, driver, Parent(kernel.Link(Sys.Platform / "drivers" / driver / name)));
        var displays = bound.ToList();
        if (displays.Exists(d => d.Function is null))
        {
            var found = OwnerOf(machine, kernel);
            displays = [.. displays.Select(d => d with { Function = d.Function ?? found })];
        }
        // What a hand-over of this boot took from its driver shows nothing any more, and is there to be bound again.
        displays.AddRange(machine.Homes.SelectMany(h => h.Console?.OfFirmware() ?? []).Distinct()
            .Where(d => displays.TrueForAll(now => now.Device != d.Device) && IsBound(d, kernel) == false).Select(d => d with { Bound = false }));
        return machine with
        {
            FirmwareDisplays = [.. displays],
            FrameBuffers =
            [
                .. FrameBuffers(kernel).Select(f => f.Firmware is null ? f
                    : f with { Function = displays.Find(d => d.Device == f.Firmware)?.Function ?? f.Function }),
            ],
        };
    }

    /// <summary>
    /// The card in whose window the firmware's picture is, where its device does not say (kernels before 6.9 do not, nor where
    /// the firmware told no function): by the kernel's list of memory, else the card that the firmware booted on.
    /// </summary>
    static PciAddress? OwnerOf(Machine machine, IKernel kernel)
    {
        // Read only here: on a big machine the list has thousands of lines.
        foreach (var picture in IoMemory.Pictures(kernel.Read(Sys.Proc / "iomem") ?? ""))
        {
            var inside = picture.Inside ?? machine.Gpus.SelectMany(g => g.Functions)
                .FirstOrDefault(f => picture.Start != 0 && f.Bars.Any(b => picture.Start >= b.Start && picture.Start - b.Start < b.Size))?.Address;
            if (inside is not null)
                return inside;
        }
        return machine.Gpus switch
        {
            [var only] => only.Address,
            var gpus => gpus.FirstOrDefault(g => g.Display().BootVga == true)?.Address,
        };
    }

    static PciAddress? Parent(string? link) => link?.Split('/') is [.., var parent, _] ? Address(parent) : null;

    static PciAddress? Address(string? name) => name is not null && PciAddress.TryParse(name, out var address) ? address : null;

    static string? LastPart(string? link) => link?[(link.LastIndexOf('/') + 1)..];
}
