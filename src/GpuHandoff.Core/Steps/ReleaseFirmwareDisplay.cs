using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>The firmware's picture taken from its driver, which has the card's memory until then.</summary>
/// <remarks>
/// For a VGA card (class 0x0300) vfio-pci would do that itself, and for good: done before, it can be undone for as long as
/// vfio-pci has not come. For other classes (0x0302) nobody else does it, and the device stays to be bound again.
/// </remarks>
public sealed record ReleaseFirmwareDisplay(FirmwareDisplay Display) : Step
{
    public override string Say() => $"release the firmware's picture {Display.Device} on {Display.Function?.ToString() ?? "a card"}";

    public override Step Undo() => new BindFirmwareDisplay(Display);

    public override Position Look(IKernel kernel) => Displays.IsBound(Display, kernel) == true ? Position.OnTheWay : Position.There;

    public override void Run(IKernel kernel, Limits limits)
    {
        try
        {
            kernel.Write(Sys.Platform / "drivers" / Display.Driver / "unbind", Display.Device, limits.Write);
        }
        catch (KernelRefused refused) when (refused.Errno == Errno.NoDevice && Displays.IsBound(Display, kernel) != true)
        {
            // Somebody else was quicker.
        }
    }
}
