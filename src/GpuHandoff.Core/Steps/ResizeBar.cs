using System.Globalization;
using System.Numerics;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>A card's second memory window to another size, while no driver has the function.</summary>
/// <param name="From">Bytes.</param>
/// <param name="To">Bytes: one of the sizes that <c>resource1_resize</c> offers.</param>
public sealed record ResizeBar(PciAddress Function, ulong From, ulong To) : Step
{
    public override string Say() => $"{Function}: BAR 1 from {Bar.Say(From)} to {Bar.Say(To)}";

    public override Step Undo() => this with { From = To, To = From };

    public override Position Look(IKernel kernel) => Now(kernel) == To ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        // pci-sysfs.c:__resource_resize_store says EBUSY under a driver; the number of the bit is wanted, not the mask.
        var bit = BitOperations.Log2(To) - 20;
        try
        {
            kernel.Write(
                Sys.Function(Function) / "resource1_resize", bit.ToString(CultureInfo.InvariantCulture), limits.Write);
        }
        catch (KernelRefused refused) when (refused.Errno == Errno.NoSpace)
        {
            throw new KernelRefused(
                Say(), refused.Errno, $"{refused.Reason}: the bridge above has no window of that size (Above 4G Decoding in the firmware helps)");
        }
        if (Now(kernel) is var now && now != To)
            throw new KernelRefused(Say(), 0, $"the kernel reported success, but it reads {Bar.Say(now)}");
    }

    ulong Now(IKernel kernel) => Surveyor.BarsOf(Function, kernel).FirstOrDefault(b => b.Index == 1)?.Size ?? 0;
}
