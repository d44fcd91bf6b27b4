using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>A range of memory that shows the firmware's picture.</summary>
/// <param name="Start">0 for who is not root: then the kernel shows the names alone (kernel/resource.c:r_show).</param>
/// <param name="Inside">The function in whose window the kernel lists it; null: in none.</param>
public sealed record PictureRange(ulong Start, string Name, PciAddress? Inside);

/// <summary>Reads <c>/proc/iomem</c> (kernel/resource.c:r_show) for what the firmware's picture takes up.</summary>
public static class IoMemory
{
    // Who claims it: drivers/firmware/sysfb_simplefb.c (BOOTFB), and the drivers on top of it.
    static readonly string[] _names =
        ["BOOTFB", "simpledrm", "simplefb", "simple-framebuffer", "efifb", "efidrm", "efi-framebuffer", "vesafb", "vesadrm", "vesa-framebuffer"];

    //   4000000000-4fffffffff : PCI Bus 0000:01          two blanks for each level
    //     4000000000-400fffffff : 0000:01:00.0           a window of the function
    //       4000000000-40007e8fff : BOOTFB               what the firmware left
    //         4000000000-40007e8fff : simpledrm
    public static ImmutableArray<PictureRange> Pictures(string text)
    {
        var found = ImmutableArray.CreateBuilder<PictureRange>();
        var above = new Stack<(int Depth, PciAddress Function)>();
        foreach (var line in text.Split('\n'))
        {
            var depth = line.Length - line.AsSpan().TrimStart(' ').Length;
            if (line.AsSpan(depth).Trim().ToString().Split(" : ", 2) is not [var range, var name])
                continue;
            while (above.TryPeek(out var last) && last.Depth >= depth)
                above.Pop();
            if (PciAddress.TryParse(name, out var function))
                above.Push((depth, function));
            else if (_names.Contains(name.EndsWith(".0", StringComparison.Ordinal) ? name[..^2] : name))
                found.Add(new(Start(range), name, above.TryPeek(out var inside) ? inside.Function : null));
        }
        return found.ToImmutable();
    }

    static ulong Start(string range) =>
        ulong.TryParse(range.Split('-')[0], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var start) ? start : 0;
}
