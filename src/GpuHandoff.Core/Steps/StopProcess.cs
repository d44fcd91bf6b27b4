using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>A process that uses the card and belongs to nothing that could be stopped in its place: asked to end, then ended.</summary>
/// <param name="Started">Its start time: another process that has the PID by now is left alone.</param>
public sealed record StopProcess(int Pid, ulong Started, string Command) : Step
{
    static readonly TimeSpan _untilKilled = TimeSpan.FromSeconds(10);
    static readonly TimeSpan _untilGone = TimeSpan.FromSeconds(5);
    static readonly TimeSpan _between = TimeSpan.FromMilliseconds(50);

    public override string Say() => $"end process {Pid} ({Command})";

    public override Step? Undo() => null;

    public override string SayNoUndo() => "none, a process that was ended cannot be started again from here";

    public override Position Look(IKernel kernel) => ProcessStat.Lives(Pid, Started, kernel) ? Position.OnTheWay : Position.There;

    public override void Run(IKernel kernel, Limits limits)
    {
        kernel.Signal(Pid, Started, ProcessSignal.Terminate);
        if (Ends(kernel, _untilKilled))
            return;
        kernel.Signal(Pid, Started, ProcessSignal.Kill);
        if (Ends(kernel, _untilGone))
            return;
        throw new KernelRefused(
            Say(), Errno.Busy, $"it is still there {_untilGone.TotalSeconds:0} s after SIGKILL, in state {ProcessStat.Of(Pid, kernel)?.State}: "
                + "a call into the kernel holds it");
    }

    bool Ends(IKernel kernel, TimeSpan patience)
    {
        var until = kernel.Uptime + patience;
        while (ProcessStat.Lives(Pid, Started, kernel))
        {
            if (kernel.Uptime >= until)
                return false;
            kernel.Pause(_between);
        }
        return true;
    }
}
