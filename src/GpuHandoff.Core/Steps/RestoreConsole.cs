using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>The frame buffer console back on the terminals, when a card has its frame buffer again.</summary>
/// <param name="Vt">The console driver by its name: it may come back under another number.</param>
/// <param name="Functions">The cards' display functions.</param>
/// <param name="Firmware">The firmware's displays on them that showed it; none: the driver's own frame buffer did.</param>
public sealed record RestoreConsole(string Vt, ImmutableArray<PciAddress> Functions, ImmutableArray<string> Firmware) : Step
{
    static readonly TimeSpan _patience = TimeSpan.FromSeconds(5);
    static readonly TimeSpan _between = TimeSpan.FromMilliseconds(50);

    public override string Say() => $"put the text console \"{Vt}\" back on {string.Join(", ", Functions)}";

    public override Step Undo() => new DetachConsole(Vt, Functions, Firmware);

    /// <summary>A card without the console is at home all the same: no reason to take it from the host again.</summary>
    public override bool MayFail() => true;

    public override Position Look(IKernel kernel) =>
        Mine(kernel) is { } && Console(kernel) is { Bound: true } || IsOver(kernel) ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        var until = kernel.Uptime + _patience;
        var buffer = Await(() => Mine(kernel), until, kernel) ?? throw Missing(
            "no frame buffer has come back; a driver makes one when it has modeset and fbdev on and a monitor is plugged in");
        var console = Await(() => Console(kernel), until, kernel) ?? throw Missing(
            $"{buffer.Name} \"{buffer.Driver}\" is there, but no console driver of that name");
        // Bound by the kernel itself as a rule, when its frame buffer came (fbcon.c:fbcon_fb_registered).
        for (var again = 0; again < 2 && !console.Bound; again++)
        {
            try
            {
                kernel.Write(Sys.VtConsoles / console.Number / "bind", "1", limits.Write);
            }
            catch (KernelRefused) when (again == 0)
            {
                // Its number may have gone to somebody else this instant.
                kernel.Pause(_between);
            }
            // vt.c:store_bind reports success whatever came of it.
            console = Console(kernel) ?? console with { Bound = false };
        }
        if (!console.Bound && !Displays.Consoles(kernel).Any(c => c.IsTheSystems()))
        {
            throw Missing($"{console.Number} cannot be bound by hand, because no system console driver is left (drivers/tty/vt/vt.c:vt_bind): "
                + "it comes back when the GPU's driver makes its frame buffer again, after a hand-over and its return or a reboot");
        }
        if (!console.Bound)
            throw Missing($"{console.Number} reads unbound after the kernel reported success: echo 1 > /sys/class/vtconsole/{console.Number}/bind tries once more");
        Redraw(kernel, limits);
    }

    /// <summary>
    /// The rotation, set to what it is, draws the visible terminal anew; one in graphics mode is left alone.
    /// </summary>
    /// <remarks>fbcon.c:store_rotate, fbcon_rotate, fbcon_modechanged: KD_TEXT and visible, then update_screen.</remarks>
    static void Redraw(IKernel kernel, Limits limits)
    {
        var rotate = Sys.Graphics / "fbcon/rotate";
        if (kernel.Read(rotate) is not { Length: > 0 } now)
            return;
        try
        {
            kernel.Write(rotate, now, limits.Write);
        }
        catch (KernelRefused)
        {
            // The console is there; its next line draws itself.
        }
    }

    /// <summary>The frame buffer that the console shall be on: the card's own driver's, or the firmware's that it was on.</summary>
    FrameBuffer? Mine(IKernel kernel) => Displays.FrameBuffers(kernel)
        .FirstOrDefault(f => (f.Function is { } on && Functions.Contains(on)) || (f.Firmware is { } device && Firmware.Contains(device)));

    VtConsole? Console(IKernel kernel) => Displays.Consoles(kernel).Where(c => c.Name == Vt).OrderByDescending(c => c.Bound).FirstOrDefault();

    /// <summary>What the firmware showed, vfio-pci took away for good: there is nothing left to put back.</summary>
    bool IsOver(IKernel kernel) => Firmware is not [] && Mine(kernel) is null
        && Firmware.All(device => !kernel.Exists(Sys.Platform / "devices" / device));

    KernelRefused Missing(string why) => new(Say(), 0, $"{why}; the card itself is on the host's driver");

    static T? Await<T>(Func<T?> look, TimeSpan until, IKernel kernel) where T : class
    {
        while (true)
        {
            if (look() is { } found)
                return found;
            if (kernel.Uptime >= until)
                return null;
            kernel.Pause(_between);
        }
    }
}
