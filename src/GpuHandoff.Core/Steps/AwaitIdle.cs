using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Steps;

/// <summary>
/// The last look before nvidia is unbound: the card must not be initialised. nvidia takes its interrupts at first open
/// and frees them at last close (nvidia/nv.c:nv_start_device, nv_stop_device), so this sees kernel users and hidden
/// descriptors, too. Changes nothing; a poller's moment is waited for.
/// </summary>
public sealed record AwaitIdle(PciAddress Function) : Step
{
    static readonly TimeSpan _patience = TimeSpan.FromSeconds(3);
    static readonly TimeSpan _between = TimeSpan.FromMilliseconds(50);

    public override string Say() => $"wait until {Function} is idle";

    public override Step? Undo() => null;

    public override Position Look(IKernel kernel) => Interrupts(kernel) == 0 ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        var until = kernel.Uptime + (limits.Total < _patience ? limits.Total : _patience);
        while (Interrupts(kernel) is > 0 and var taken)
        {
            if (kernel.Uptime >= until)
            {
                throw new KernelRefused(
                    $"wait until {Function} is idle", Errno.Busy,
                    $"nvidia has {taken} interrupts for it: somebody uses it, and an unbind would never end");
            }
            kernel.Pause(_between);
        }
    }

    int Interrupts(IKernel kernel) => kernel.List(Sys.Function(Function) / "msi_irqs").Count;
}
