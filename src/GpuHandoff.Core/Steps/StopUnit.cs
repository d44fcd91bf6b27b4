using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>A unit of systemd that uses the card, stopped.</summary>
/// <remarks>
/// systemctl waits for the job and tells why it failed, which a --no-block with polling would not. Over its budget only the
/// client is ended: the job is PID 1's, and the undo's start job takes its place.
/// </remarks>
public sealed record StopUnit(string Unit) : Step
{
    /// <summary>CUDA MPS runs in it, for cards that stay as well: whoever works through it there is not ended for this one's sake.</summary>
    public bool SparesClients { get; init; }

    /// <summary>So that it meets a card that comes back. One that does not stop is left at work, and told.</summary>
    public bool ToBeginAnew { get; init; }

    public override string Say() => $"stop {Unit}";

    public override Step Undo() => new StartUnit(Unit);

    public override bool MayFail() => ToBeginAnew;

    public override Position Look(IKernel kernel) => Units.IsDown(Unit, kernel) ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        if (SparesClients)
        {
            foreach (var mps in MpsProcesses.Daemons(kernel).Where(m => m.Unit == Unit))
                MpsPipe.RefuseClients(mps.Daemon, mps.Servers, Say(), kernel, limits.Program);
        }
        kernel.Demand(limits.Users, Programs.Systemctl, "stop", "--", Unit);
    }
}
