using System.Globalization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>A control daemon of CUDA MPS started again as it was, in a unit of its own: not a child of ours, and not ended with us.</summary>
public sealed record StartMps(MpsDaemon Daemon) : Step
{
    /// <summary>It works for other cards too: what it does there is not undone for the sake of this one.</summary>
    public bool ForOthers { get; init; }

    /// <summary>A server knows the cards that it met when it began: one that runs for others begins anew, where it has no client.</summary>
    public bool Anew { get; init; }

    public override string Say() => $"start {Daemon}{(Anew ? " anew" : "")}";

    public override Step? Undo() => ForOthers ? null : new StopMps(Daemon, Force: true);

    public override string SayNoUndo() => "none, it works for other cards too";

    public override bool MayFail() => true;

    public override Position Look(IKernel kernel) => !Anew && IsRunning(kernel) ? Position.There : Position.OnTheWay;

    bool IsRunning(IKernel kernel) => MpsProcesses.Of(Daemon, kernel).Exists(p => p.IsControl);

    public override void Run(IKernel kernel, Limits limits)
    {
        if (IsRunning(kernel))
            new StopMps(Daemon, Force: false).Run(kernel, limits);
        // -d forks; -f, which would not, is newer than many drivers. A name of its own each time: one that has failed stays.
        var name = $"{MpsDaemon.OurUnits}{((long)kernel.Uptime.TotalMilliseconds).ToString(CultureInfo.InvariantCulture)}";
        kernel.Demand(limits.Users, Programs.SystemdRun,
        [
            "--quiet", "--collect", $"--unit={name}", "--property=Type=forking",
            $"--uid={Daemon.User.ToString(CultureInfo.InvariantCulture)}", $"--gid={Daemon.Group.ToString(CultureInfo.InvariantCulture)}",
            .. Daemon.Environment.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(entry => $"--setenv={entry}"),
            "--", Programs.MpsControl, "-d",
        ]);
        if (!IsRunning(kernel))
            throw new KernelRefused(Say(), 0, $"systemd-run reported success, but it does not run: journalctl -u {name} tells why");
    }
}
