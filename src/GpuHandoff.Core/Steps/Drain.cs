using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>
/// The driver's drain state of one card: who has it open keeps it, and every new open is refused, so that no poller comes
/// between the last look and the unbind. A card for which the driver does not do it stays open, and the look right before
/// the unbind is all there is. The state dies with the unbind.
/// </summary>
/// <remarks>nvidia/nv.c:nv_open_device gives EBUSY, a first open EIO (osapi.c:rm_init_adapter).</remarks>
public sealed record Drain(PciAddress Function, bool On) : Step
{
    public override string Say() => On ? $"{Function}: let the driver turn new users away (drain)" : $"{Function}: let new users in again (end of drain)";

    public override Step Undo() => this with { On = !On };

    // Off, it comes behind a card that is at home: one that stays closed is told, and not taken from the host again.
    public override bool MayFail() => true;

    public override Position Look(IKernel kernel)
    {
        // Asking costs as much as doing (nvidia-smi is started anew for it), so on the way forward nobody asks.
        if (On)
            return Position.OnTheWay;
        return Surveyor.DriverOf(Function, kernel) == "nvidia" && IsOn(kernel) ? Position.OnTheWay : Position.There;
    }

    public override void Run(IKernel kernel, Limits limits)
    {
        if (!On)
        {
            kernel.Demand(limits.Program, Programs.NvidiaSmi, "drain", "-p", Function.ToString(), "-m", "0");
            if (IsOn(kernel))
                throw new KernelRefused(Say(), 0, $"nvidia-smi reported success, but the GPU is still closed to new users: nvidia-smi drain -p {Function} -m 0");
            return;
        }
        var (exit, output) = kernel.RunProgram(Programs.NvidiaSmi, ["drain", "-p", Function.ToString(), "-m", "1"], limits.Program);
        // A card for which the driver does not do it, which is the rule for GeForce, stays open as it was: nothing to ask about.
        // One that is drained already says NV_ERR_IN_USE (gpu_mgr.c:gpumgrModifyGpuDrainState), and is as closed as we want it.
        if (exit != 0 && !output.Contains("not supported", StringComparison.OrdinalIgnoreCase) && IsOn(kernel))
            throw new NothingDone($"another program had set it; it is left set, and ends with the unbind or by: nvidia-smi drain -p {Function} -m 0");
    }

    // The current drain state of GPU 00000000:01:00.0 is: not draining.
    bool IsOn(IKernel kernel)
    {
        var (exit, output) = kernel.RunProgram(Programs.NvidiaSmi, ["drain", "-p", Function.ToString(), "-q"], Limits.Default.Program);
        return exit == 0 && output.Contains("draining", StringComparison.OrdinalIgnoreCase)
            && !output.Contains("not draining", StringComparison.OrdinalIgnoreCase);
    }
}
