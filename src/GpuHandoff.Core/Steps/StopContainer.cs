using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Steps;

/// <summary>A container that uses the card, shut down: killed by its manager where it does not end by itself in time.</summary>
public sealed record StopContainer(Container Container) : Step
{
    public override string Say() => $"stop {Container}";

    public override Step Undo() => new StartContainer(Container);

    public override Position Look(IKernel kernel) =>
        Containers.IsRunning(Container, kernel) == false ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits) => Containers.Stop(Container, kernel, limits);
}
