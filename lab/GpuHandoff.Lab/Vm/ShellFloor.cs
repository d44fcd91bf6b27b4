namespace GpuHandoff.Lab.Vm;

/// <summary>
/// The least that a handoff can be: a shell's builtins write override, unbind and probe, with no check, no undo. What works
/// by this works in the lab; what is slower than this is to be explained.
/// </summary>
public static class ShellFloor
{
    /// <summary>All functions of the card to vfio-pci, which must be loaded.</summary>
    public static string ToVfio(PluggedGpu gpu) => ForEach(gpu, """
        echo vfio-pci > driver_override
        [ ! -e driver ] || echo $f > driver/unbind
        echo $f > /sys/bus/pci/drivers_probe
        """);

    /// <summary>All functions of the card back to the drivers that want them.</summary>
    public static string ToHost(PluggedGpu gpu) => ForEach(gpu, """
        [ ! -e driver ] || echo $f > driver/unbind
        echo > driver_override
        echo $f > /sys/bus/pci/drivers_probe
        """);

    static string ForEach(PluggedGpu gpu, string body) => $"""
        set -e
        for f in {string.Join(' ', gpu.Functions.Select(function => function.Address))}; do
        cd /sys/bus/pci/devices/$f
        {body}
        done
        """;
}
