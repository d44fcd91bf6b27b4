using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Steps;

/// <summary>A container that a hand-over had stopped, started again.</summary>
public sealed record StartContainer(Container Container) : Step
{
    public override string Say() => $"start {Container}";

    public override Step Undo() => new StopContainer(Container);

    public override bool MayFail() => true;

    public override Position Look(IKernel kernel) =>
        Containers.IsRunning(Container, kernel) == true ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        Containers.Start(Container, kernel, limits);
        if (Containers.IsRunning(Container, kernel) == false)
            throw new KernelRefused(Say(), 0, "its manager reported success, but it does not run");
    }
}
