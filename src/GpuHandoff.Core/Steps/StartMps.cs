using System.Globalization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>A control daemon of CUDA MPS started again as it was, in a unit of its own: not a child of ours, and not ended with us.</summary>
public sealed record StartMps(MpsDaemon Daemon) : Step
{
    /// <summary>It works for other cards too: whoever uses it there is not ended for the sake of this one.</summary>
    public bool ForOthers { get; init; }

    public override string Say() => $"start {Daemon}";

    public override Step Undo() => new StopMps(Daemon, Force: !ForOthers);

    public override bool MayFail() => true;

    public override Position Look(IKernel kernel) =>
        MpsProcesses.Of(Daemon, kernel).Exists(p => p.IsControl) ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        // -d forks; -f, which would not, is newer than many drivers. A name of its own each time: one that has failed stays.
        var name = $"{MpsDaemon.OurUnits}{((long)kernel.Uptime.TotalMilliseconds).ToString(CultureInfo.InvariantCulture)}";
        kernel.Demand(limits.Users, Programs.SystemdRun,
        [
            "--quiet", "--collect", $"--unit={name}", "--property=Type=forking",
            $"--uid={Daemon.User.ToString(CultureInfo.InvariantCulture)}", $"--gid={Daemon.Group.ToString(CultureInfo.InvariantCulture)}",
            .. Daemon.Environment.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(entry => $"--setenv={entry}"),
            "--", Programs.MpsControl, "-d",
        ]);
        if (Look(kernel) != Position.There)
            throw new KernelRefused(Say(), 0, $"systemd-run reported success, but it does not run: journalctl -u {name} tells why");
    }
}
