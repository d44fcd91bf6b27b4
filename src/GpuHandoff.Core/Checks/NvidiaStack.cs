using System.Collections.Immutable;
using GpuHandoff.Machines;

namespace GpuHandoff.Checks;

/// <summary>NVIDIA's modules and those that are built on them, in the order in which they come down.</summary>
public static class NvidiaStack
{
    /// <summary>The order of unloading. Loading is the other way round.</summary>
    public static ImmutableArray<string> TopDown { get; } =
        ["nvidia_uvm", "nvidia_peermem", "nvidia_fs", "gdrdrv", "nvidia_drm", "nvidia_modeset", "nvidia"];

    public static bool Has(string module) => TopDown.Contains(module);

    /// <summary>Loaded modules of the stack, from the top down.</summary>
    public static IEnumerable<KernelModule> Loaded(Machine machine) =>
        TopDown.Select(machine.Module).Where(m => m.State != ModuleState.Absent);

    /// <summary>With modeset=1 nvidia_drm itself holds the modules below it, so their counts tell nothing of users.</summary>
    /// <remarks>nvidia-drm-drv.c:nv_drm_load, allocateDevice; nvidia/nv.c:nvidia_dev_get.</remarks>
    public static bool DrmHoldsModules(Machine machine) =>
        machine.Module("nvidia_drm").Parameters.Any(p => p is "modeset=Y" or "modeset=1");
}
