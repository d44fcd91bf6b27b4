using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>Looks a name up in pci.ids, the list that Debian keeps in /usr/share/misc (package pci.ids).</summary>
public static class PciIds
{
    // 10de  NVIDIA Corporation
    // 	2684  AD102 [GeForce RTX 4090]
    // 		1043 889a  ...                                          subsystems: two tabs, passed over
    public static string? Find(string text, PciId id)
    {
        var vendor = $"{id.Vendor:x4}  ";
        var device = $"\t{id.Device:x4}  ";
        string? maker = null;
        foreach (var line in text.AsSpan().EnumerateLines())
        {
            if (line is [] or ['#', ..])
                continue;
            if (line[0] != '\t')
            {
                if (maker is not null)
                    return maker;
                if (line.StartsWith(vendor, StringComparison.Ordinal))
                    maker = line[vendor.Length..].Trim().ToString();
            }
            else if (maker is not null && line.StartsWith(device, StringComparison.Ordinal))
            {
                return $"{maker} {line[device.Length..].Trim()}";
            }
        }
        return maker;
    }
}
