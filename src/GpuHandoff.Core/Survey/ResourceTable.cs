using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>Reads a function's <c>resource</c> file (drivers/pci/pci-sysfs.c:resource_show).</summary>
public static class ResourceTable
{
    // 0x00000000fd000000 0x00000000fdffffff 0x0000000000040200      start, end, flags; the first six lines are the BARs
    // 0x0000000000000000 0x0000000000000000 0x0000000000000000      not there
    public static ImmutableArray<Bar> Parse(string text)
    {
        var bars = ImmutableArray.CreateBuilder<Bar>();
        foreach (var (index, line) in text.Split('\n').Take(6).Index())
        {
            if (line.Split(' ') is not [var first, var last, _] || !Hex(first, out var start) || !Hex(last, out var end))
                continue;
            if (end > start)
                bars.Add(new(index, start, end - start + 1));
        }
        return bars.ToImmutable();
    }

    // 0000000000001fc0      bit n: 2^n MiB is possible (pci-sysfs.c:__resource_resize_show, PCI Express ReBAR capability)
    public static ImmutableArray<ulong> Sizes(string text) =>
        ulong.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var mask)
            ? [.. from bit in Enumerable.Range(0, 43) where (mask >> bit & 1) != 0 select 1UL << (bit + 20)]
            : [];

    static bool Hex(string text, out ulong value)
    {
        value = 0;
        return text.StartsWith("0x", StringComparison.Ordinal)
            && ulong.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value);
    }
}
