using System.Collections.Immutable;

namespace GpuHandoff.Survey;

/// <summary>
/// Reads the IDs that vfio-pci is given at boot. It shows neither these nor later ones (new_id) anywhere in sysfs
/// (vfio_pci.c: module_param_string with mode 0), so this is all that can be known.
/// </summary>
public static class VfioIdList
{
    // quiet intel_iommu=on vfio-pci.ids=10de:2684,10de:22ba                the kernel's command line
    // options vfio-pci ids=10de:2684,10de:22ba disable_vga=1               a line of modprobe.d
    public static ImmutableArray<string> Parse(string commandLine, IEnumerable<string> modprobe)
    {
        var words = commandLine.Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries)
            .Where(word => word.StartsWith("vfio-pci.ids=", StringComparison.Ordinal) || word.StartsWith("vfio_pci.ids=", StringComparison.Ordinal))
            .Concat(modprobe.SelectMany(text => text.Split('\n'))
                .Select(line => line.Split([' ', '\t'], StringSplitOptions.RemoveEmptyEntries))
                .Where(line => line is ["options", "vfio-pci" or "vfio_pci", ..])
                .SelectMany(line => line.Where(word => word.StartsWith("ids=", StringComparison.Ordinal))));
        return [.. words.SelectMany(word => word[(word.IndexOf('=') + 1)..].Split(',', StringSplitOptions.RemoveEmptyEntries)).Distinct()];
    }
}
