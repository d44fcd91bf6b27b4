using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>The last look before nvidia is unbound. Changes nothing; a poller's moment is waited for.</summary>
public sealed record AwaitIdle(PciAddress Function) : Step
{
    static readonly TimeSpan _patience = TimeSpan.FromSeconds(3);
    static readonly TimeSpan _between = TimeSpan.FromMilliseconds(50);

    public override string Say() => $"wait until {Function} is idle";

    public override Step? Undo() => null;

    public override Position Look(IKernel kernel) => Idleness.WhyNot(Function, kernel) is null ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits) => Await(Function, $"wait until {Function} is idle", kernel);

    /// <summary>Waits for a poller's moment to pass, and not for a user that stays.</summary>
    public static void Await(PciAddress function, string saying, IKernel kernel)
    {
        var until = kernel.Uptime + _patience;
        while (Idleness.WhyNot(function, kernel) is { } busy)
        {
            if (kernel.Uptime >= until)
                throw new KernelRefused(saying, Errno.Busy, $"{busy}: somebody uses it, and an unbind would never end");
            kernel.Pause(_between);
        }
    }
}
