using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Steps;

/// <summary>
/// One module taken down. A poller's moment is waited for: the plan has taken the driver's nodes out of /dev before, so
/// whoever has one open is the last.
/// </summary>
static class Unloading
{
    static readonly TimeSpan _patience = TimeSpan.FromSeconds(3);
    static readonly TimeSpan _between = TimeSpan.FromMilliseconds(50);

    public static void Patiently(string module, IKernel kernel, Limits limits)
    {
        var until = kernel.Uptime + _patience;
        while (true)
        {
            try
            {
                kernel.UnloadModule(module, limits.Module);
                return;
            }
            // In use, or with dependants (kernel/module/main.c:try_stop_module); it is as it was.
            catch (KernelRefused refused) when (refused.Errno == Errno.TryAgain && kernel.Uptime < until)
            {
                kernel.Pause(_between);
            }
        }
    }
}
