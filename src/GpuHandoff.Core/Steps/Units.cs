using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Steps;

/// <summary>systemd's units through systemctl, in the small parts that the steps are made of.</summary>
static class Units
{
    /// <summary>active, reloading, inactive, failed, activating, deactivating …; null where nobody can tell.</summary>
    public static string? StateOf(string unit, IKernel kernel)
    {
        try
        {
            var (exit, output) = kernel.RunProgram(
                Programs.Systemctl, ["show", "--property=ActiveState", "--value", "--", unit], Limits.Default.Program);
            return exit == 0 ? output : null;
        }
        catch (KernelRefused)
        {
            // systemd does not answer: whoever then stops or starts the unit is told why.
            return null;
        }
    }

    public static bool IsDown(string unit, IKernel kernel) => StateOf(unit, kernel) is "inactive" or "failed";

    /// <summary>A unit that is on its way up has been started: how long it takes is its own business.</summary>
    public static bool IsUp(string unit, IKernel kernel) => StateOf(unit, kernel) is "active" or "reloading" or "refreshing" or "activating";
}
