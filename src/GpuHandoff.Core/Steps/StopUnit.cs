using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Steps;

/// <summary>A unit of systemd that uses the card, stopped.</summary>
/// <remarks>
/// systemctl waits for the job and tells why it failed, which a --no-block with polling would not. Over its budget only the
/// client is ended: the job is PID 1's, and the undo's start job takes its place.
/// </remarks>
public sealed record StopUnit(string Unit) : Step
{
    public override string Say() => $"stop {Unit}";

    public override Step Undo() => new StartUnit(Unit);

    public override Position Look(IKernel kernel) => Units.IsDown(Unit, kernel) ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits) => kernel.Demand(limits.Users, Programs.Systemctl, "stop", "--", Unit);
}
