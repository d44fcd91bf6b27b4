using GpuHandoff.Checks;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>
/// Whether nvidia could be unbound from a card and ever come back. nvidia takes a card's interrupts at first open and frees
/// them at last close (nvidia/nv.c:nv_start_device, nv_stop_device), so they show kernel users and hidden descriptors, too.
/// nvidia_drm with modeset=1 is such a user for as long as it is loaded; then only the modules' counts can tell.
/// </summary>
public static class Idleness
{
    /// <summary>The folder with an entry for each interrupt that a driver has of a function (drivers/pci/msi/msi.c); it may be missing.</summary>
    public static SysPath Interrupts(PciAddress function) => Sys.Function(function) / "msi_irqs";

    /// <summary>Why the card counts as in use; null: it is idle.</summary>
    public static string? WhyNot(PciAddress function, IKernel kernel)
    {
        var interrupts = kernel.List(Interrupts(function)).Count;
        if (interrupts == 0)
            return null;
        var drmHoldsIt = kernel.Read(Sys.Module("nvidia_drm") / "parameters/modeset") is "Y" or "1";
        // An older nvidia_drm lets go of no single card, however idle it is: a udev rule may have loaded it again after we
        // took it down.
        if (drmHoldsIt && (kernel.Read(Sys.Proc / "driver/nvidia/version") is not { } version
            || NvidiaProc.Version(version)?.DrmFollowsUnbind() != true))
        {
            return "nvidia_drm is loaded and holds it";
        }
        return WhyNot(
            interrupts,
            [.. ModuleList.Parse(kernel.Read(Sys.Proc / "modules") ?? "").Where(m => NvidiaStack.Has(m.Name))],
            drmHoldsIt);
    }

    public static string? WhyNot(int interrupts, IReadOnlyList<KernelModule> stack, bool drmHoldsIt)
    {
        if (interrupts == 0 || (drmHoldsIt && AreUnused(stack)))
            return null;
        return $"nvidia has {interrupts} interrupts for it"
            + (drmHoldsIt ? $", and nvidia_drm is not the only one to use {stack.FirstOrDefault(m => m.Users() > 0)?.Name ?? "it"}" : "");
    }

    /// <summary>No module of the stack has a user that is no module: nobody has a node open, visible or not.</summary>
    public static bool AreUnused(IEnumerable<KernelModule> stack) => stack.All(m => m.RefCount is not null && m.Users() == 0);
}
