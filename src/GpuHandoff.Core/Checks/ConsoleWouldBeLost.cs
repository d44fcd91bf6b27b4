using GpuHandoff.Goals;
using GpuHandoff.Machines;

namespace GpuHandoff.Checks;

static class ConsoleWouldBeLost
{
    public static Check Check { get; } = new(
        "console-would-be-lost", Target.Vfio,
        "vfio-pci ends the firmware's picture of a VGA card until the next boot (video/aperture.c:aperture_remove_conflicting_pci_devices): where the host's only text console is on it and no driver makes another, nobody sees the host's terminals any more.",
        q => !q.Policy.For(q.Gpu).LoseConsole && TextConsole.LostWith(q.Machine, q.Gpu, q.Goal.Gpus) is { } console
            ? [new(
                "console-would-be-lost",
                $"the host's text console would end with {q.Gpu}, until the next boot",
                [$"it is on {console}, and on no other card", Drm(q.Machine, q.Gpu)],
                $"{Remedy(q.Machine, q.Gpu)}, or let it go with --lose-console")]
            : []);

    static string Drm(Machine machine, Gpu gpu)
    {
        if (!gpu.IsNvidia())
            return $"{gpu.Display().Owner} makes no frame buffer for it";
        var drm = machine.Module("nvidia_drm");
        return !drm.IsThere() ? "nvidia_drm, which could make another, is not loaded"
            : $"nvidia_drm makes none: it runs with {(drm.Parameters is [] ? "parameters that only root sees" : string.Join(' ', drm.Parameters))}";
    }

    /// <summary>What brings a picture back by NVIDIA's own driver, whose defaults differ by release.</summary>
    /// <remarks>nvidia-drm-os-interface.c: 535 modeset=0; 550 to 565 modeset=0 fbdev=0; 570 to 590 modeset=0 fbdev=1; 595 both 1.</remarks>
    public static string Remedy(Machine machine, Gpu gpu) => !gpu.IsNvidia() ? "boot with a driver that shows a console on it"
        : machine.Nvidia switch
        {
            null => "load NVIDIA's driver with nvidia_drm modeset=1 fbdev=1 (550 or later) before",
            { Major: < 550 } version => $"driver {version} cannot show a console; 550 and later can",
            { Major: < 570 } => $"{Line("modeset=1 fbdev=1")}",
            { Major: < 595 } => $"{Line("modeset=1")}",
            _ when machine.Module("nvidia_drm").IsThere() => $"{Line("modeset=1 fbdev=1")} (the default of this release, which something switches off)",
            _ => "load nvidia_drm: this release shows a console by default",
        };

    static string Line(string options) =>
        $"have nvidia_drm show the console: a line \"options nvidia-drm {options}\" in /etc/modprobe.d, update-initramfs -u, reboot";
}
