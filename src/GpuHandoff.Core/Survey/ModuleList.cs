using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>Reads /proc/modules (kernel/module/procfs.c:m_show).</summary>
public static class ModuleList
{
    // nvidia_uvm 4890624 0 - Live 0x0000000000000000 (O)
    // nvidia 60620800 2 nvidia_uvm,nvidia_modeset, Live 0x0000000000000000 (O)
    // nvidia 14299136 - - Live 0xffffffffc0400000 (O)        a kernel without module unloading counts nothing
    public static ImmutableArray<KernelModule> Parse(string text)
    {
        var modules = ImmutableArray.CreateBuilder<KernelModule>();
        foreach (var line in text.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            if (line.Split(' ') is not [var name, _, var count, var holders, var state, ..])
                continue;
            modules.Add(new(
                name,
                state switch { "Live" => ModuleState.Loaded, "Loading" => ModuleState.Loading, _ => ModuleState.Unloading },
                int.TryParse(count, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var n) ? n : null,
                holders == "-" ? [] : [.. holders.Split(',', StringSplitOptions.RemoveEmptyEntries)]));
        }
        return modules.ToImmutable();
    }
}
