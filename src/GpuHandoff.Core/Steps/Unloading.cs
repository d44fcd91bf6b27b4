using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Survey;

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
            catch (KernelRefused refused) when (refused.Errno == Errno.TryAgain)
            {
                if (TakeConsoleOff(module, kernel, limits))
                    continue;
                if (kernel.Uptime >= until)
                    throw new KernelRefused(refused.Call, refused.Errno, $"{refused.Reason}{Who(module, kernel)}");
                kernel.Pause(_between);
            }
        }
    }

    /// <summary>
    /// The text console off the module's frame buffers, where nothing but the console holds the module, as on an old kernel
    /// (fbcon.c:fbcon_open): a driver that was loaded again in a failed return has taken the terminals by itself. They leave
    /// with the frame buffers anyway.
    /// </summary>
    /// <returns>Whether that was so, and the unload is worth another try at once.</returns>
    static bool TakeConsoleOff(string module, IKernel kernel, Limits limits)
    {
        if (module != "nvidia_drm" || Displays.Consoles(kernel).FirstOrDefault(c => c.Bound && c.IsOnFrameBuffers()) is not { } console)
            return false;
        var buffers = Displays.FrameBuffers(kernel);
        var users = ModuleList.Parse(kernel.Read(Sys.Proc / "modules") ?? "").FirstOrDefault(m => m.Name == module)?.Users();
        if (users != buffers.Length || !buffers.All(f => f.Driver.StartsWith("nvidia", StringComparison.Ordinal)))
            return false;
        kernel.Write(Sys.VtConsoles / console.Number / "bind", "0", limits.Write);
        return !Displays.Consoles(kernel).Any(c => c.Name == console.Name && c.Bound);
    }

    /// <summary>Looked for once, when all is lost: whoever came in the middle of a run is in no plan.</summary>
    static string Who(string module, IKernel kernel)
    {
        try
        {
            var users = Holders.OfModule(module, kernel);
            var more = users.Count > Shown ? $" and {users.Count - Shown} more" : "";
            return users is []
                ? "; no process shows it open: a kernel client or a hidden descriptor has it"
                : $"; it is in use by {string.Join(", ", users.Take(Shown))}{more}: end them and try again";
        }
        catch (Exception failed) when (failed is KernelRefused or KernelSilent)
        {
            // The refusal is what counts.
            return "";
        }
    }

    const int Shown = 5;
}
