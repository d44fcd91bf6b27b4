using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>A control daemon of CUDA MPS told to quit through its pipe, with its servers.</summary>
/// <remarks>
/// It waits for its servers, and they for their clients (nvidia-cuda-mps-control(1), "quit"). So clients that are left stop
/// this before it begins, unless the policy ends processes.
/// </remarks>
/// <param name="Force">SIGTERM, and SIGKILL, for what does not end by itself.</param>
public sealed record StopMps(MpsDaemon Daemon, bool Force) : Step
{
    static readonly TimeSpan _untilTold = TimeSpan.FromSeconds(10);
    static readonly TimeSpan _untilGone = TimeSpan.FromSeconds(5);
    static readonly TimeSpan _between = TimeSpan.FromMilliseconds(50);

    /// <summary>So that it meets a card that comes back. One that is at work is left at it, and told.</summary>
    public bool ToBeginAnew { get; init; }

    public override string Say() => $"stop {Daemon}";

    public override Step Undo() => new StartMps(Daemon);

    public override bool MayFail() => ToBeginAnew;

    public override Position Look(IKernel kernel) => MpsProcesses.Of(Daemon, kernel) is [] ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        var running = MpsProcesses.Of(Daemon, kernel);
        if (!Force)
            MpsPipe.RefuseClients(Daemon, running.Where(p => !p.IsControl).Select(p => p.Pid), Say(), kernel, limits.Program);
        if (running.Exists(p => p.IsControl))
            Quit(kernel);
        if (Ends(kernel, _untilTold))
            return;
        if (!Force)
            throw new KernelRefused(Say(), Errno.Busy, $"it is still there {_untilTold.TotalSeconds:0} s after it was told to quit, and no process may be ended");
        foreach (var (signal, patience) in new[] { (ProcessSignal.Terminate, _untilTold), (ProcessSignal.Kill, _untilGone) })
        {
            foreach (var process in MpsProcesses.Of(Daemon, kernel))
                kernel.Signal(process.Pid, process.Started, signal);
            if (Ends(kernel, patience))
                return;
        }
        throw new KernelRefused(Say(), Errno.Busy, "it is still there after SIGKILL: a call into the kernel holds it");
    }

    // Its words do not matter: whether it quits is seen, and one that waits for a client or whose pipe is broken is ended.
    void Quit(IKernel kernel)
    {
        try
        {
            _ = MpsPipe.Tell(Daemon, "quit", kernel, _untilTold);
        }
        catch (KernelRefused) when (Force)
        {
        }
    }

    bool Ends(IKernel kernel, TimeSpan patience)
    {
        var until = kernel.Uptime + patience;
        while (Look(kernel) != Position.There)
        {
            if (kernel.Uptime >= until)
                return false;
            kernel.Pause(_between);
        }
        return true;
    }
}
