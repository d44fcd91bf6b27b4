using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>The frame buffer console off the terminals, so that nothing draws on a card that leaves.</summary>
/// <remarks>
/// Newer drivers do without: their frame buffer unregisters and fbcon moves over by itself (drm_fbdev_ttm.c, "No need to take
/// a ref for fbcon"). An older one is held by it, and its module's unload says so. So a console that does not let go is told
/// and no reason to stop here: whether it matters, the module's own count decides.
/// </remarks>
/// <param name="Vt">The console driver by its name; its number may be another one at any time.</param>
/// <param name="Functions">The cards' display functions.</param>
/// <param name="Firmware">The firmware's displays on them.</param>
public sealed record DetachConsole(string Vt, ImmutableArray<PciAddress> Functions, ImmutableArray<string> Firmware) : Step
{
    public override string Say() => $"take the text console \"{Vt}\" off {string.Join(", ", Functions)}";

    public override Step Undo() => new RestoreConsole(Vt, Functions, Firmware);

    public override bool MayFail() => true;

    public override Position Look(IKernel kernel) => IsDue(kernel) ? Position.OnTheWay : Position.There;

    public override void Run(IKernel kernel, Limits limits)
    {
        foreach (var console in Displays.Consoles(kernel).Where(c => c.Name == Vt && c.Bound))
            kernel.Write(Sys.VtConsoles / console.Number / "bind", "0", limits.Write);
        // drivers/tty/vt/vt.c:store_bind reports success whatever came of it.
        if (Displays.Consoles(kernel).FirstOrDefault(c => c.Name == Vt && c.Bound) is { } still)
            throw new KernelRefused(Say(), 0, $"the kernel reported success, but {still.Number} is still bound; the driver's own unload tells whether that matters");
    }

    /// <summary>fbcon is one for all frame buffers: with another card's come meanwhile it moves there by itself, and is let be.</summary>
    bool IsDue(IKernel kernel) => Displays.Consoles(kernel).Any(c => c.Name == Vt && c.Bound)
        && Displays.FrameBuffers(kernel).All(f => (f.Function is { } on && Functions.Contains(on)) || (f.Firmware is { } device && Firmware.Contains(device)));
}
