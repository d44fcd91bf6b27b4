using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Steps;

/// <summary>The same target started again, and of what hangs on it exactly that which was up before.</summary>
/// <remarks>
/// A target starts all that is installed into it (WantedBy=), also what somebody had stopped. Without its dependencies it
/// starts alone: systemctl(1), --job-mode=ignore-dependencies.
/// </remarks>
public sealed record StartTarget(string Unit, ImmutableArray<string> Bound) : Step
{
    public override string Say() => Bound is [] ? $"start {Unit}" : $"start {Unit} and what was up with it ({string.Join(", ", Bound)})";

    public override Step Undo() => new StopTarget(Unit, Bound);

    public override bool MayFail() => true;

    public override Position Look(IKernel kernel) =>
        Bound.Add(Unit).All(u => Units.IsUp(u, kernel)) ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        if (!Units.IsUp(Unit, kernel))
        {
            _ = kernel.RunProgram(Programs.Systemctl, ["reset-failed", "--", Unit], limits.Program);
            kernel.Demand(limits.Users, Programs.Systemctl, "start", "--job-mode=ignore-dependencies", "--", Unit);
        }
        foreach (var unit in Bound.Where(u => !Units.IsUp(u, kernel)))
            new StartUnit(unit).Run(kernel, limits);
        if (Units.StateOf(Unit, kernel) is "inactive" or "failed")
            throw new KernelRefused(Say(), 0, "systemctl reported success, but it is down");
    }
}
