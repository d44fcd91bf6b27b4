using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Steps;

/// <summary>The target that says "this card is the host's", stopped: systemd takes down with it what is bound to it.</summary>
/// <param name="Bound">What was up with it, for the way back.</param>
public sealed record StopTarget(string Unit, ImmutableArray<string> Bound) : Step
{
    public override string Say() => Bound is [] ? $"stop {Unit}" : $"stop {Unit} and what is bound to it ({string.Join(", ", Bound)})";

    public override Step Undo() => new StartTarget(Unit, Bound);

    public override Position Look(IKernel kernel) =>
        Bound.Add(Unit).All(u => Units.IsDown(u, kernel)) ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        kernel.Demand(limits.Users, Programs.Systemctl, "stop", "--", Unit);
        // One that is bound without After= may still be on its way down when the target has gone.
        foreach (var unit in Bound.Where(u => !Units.IsDown(u, kernel)))
            kernel.Demand(limits.Users, Programs.Systemctl, "stop", "--", unit);
    }
}
