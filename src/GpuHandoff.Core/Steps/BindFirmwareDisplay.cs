using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>The firmware's picture given back to its driver, where there is one left.</summary>
/// <remarks>
/// Its device is gone for good once vfio-pci or a native driver has had a VGA card (video/aperture.c,
/// aperture_detach_platform_device): then "No such device" is no error, and the card's own driver has to show the console.
/// </remarks>
public sealed record BindFirmwareDisplay(FirmwareDisplay Display) : Step
{
    public override string Say() => $"give the firmware's picture {Display.Device} back to {Display.Driver}";

    public override Step Undo() => new ReleaseFirmwareDisplay(Display);

    public override bool MayFail() => true;

    public override Position Look(IKernel kernel) => Displays.IsBound(Display, kernel) == false ? Position.OnTheWay : Position.There;

    public override void Run(IKernel kernel, Limits limits)
    {
        try
        {
            kernel.Write(Sys.Platform / "drivers" / Display.Driver / "bind", Display.Device, limits.Write);
        }
        catch (KernelRefused refused) when (refused.Errno is Errno.NoDevice or Errno.Busy && Displays.IsBound(Display, kernel) != false)
        {
            // Gone since we looked, or bound by somebody else.
        }
        if (Displays.IsBound(Display, kernel) == false)
            throw new KernelRefused(Say(), 0, "the kernel reported success, but no driver has it");
    }
}
