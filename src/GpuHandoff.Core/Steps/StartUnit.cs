using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Steps;

/// <summary>A unit of systemd that a hand-over had stopped, started again.</summary>
public sealed record StartUnit(string Unit) : Step
{
    public override string Say() => $"start {Unit}";

    public override Step Undo() => new StopUnit(Unit);

    public override bool MayFail() => true;

    public override Position Look(IKernel kernel) => Units.IsUp(Unit, kernel) ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        // A unit that was started too often in a short time refuses the next start until it is forgiven (systemd.unit(5),
        // StartLimitBurst). Nothing to forgive is an error here and none to us.
        _ = kernel.RunProgram(Programs.Systemctl, ["reset-failed", "--", Unit], limits.Program);
        kernel.Demand(limits.Users, Programs.Systemctl, "start", "--", Unit);
        if (Units.StateOf(Unit, kernel) is var state && state is "inactive" or "failed")
            throw new KernelRefused(Say(), 0, $"systemctl reported success, but the unit is {state}: journalctl -u {Unit} tells why");
    }
}
