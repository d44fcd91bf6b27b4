using System.Collections.Immutable;
using System.Globalization;

namespace GpuHandoff.Goals;

/// <summary>Processors of the host, as the kernel lists them: <c>0-3,8,10-11</c> (lib/vsprintf.c, "%*pbl").</summary>
public static class CpuList
{
    /// <summary>The kernel is built for no more (arch/x86/Kconfig: NR_CPUS_RANGE_END).</summary>
    public const int Most = 8192;

    // 2-5,10,12-13
    /// <summary>In the order in which they are written; null: this is no list, or a processor is in it twice.</summary>
    public static ImmutableArray<int>? Parse(string text)
    {
        var cpus = ImmutableArray.CreateBuilder<int>();
        var seen = new HashSet<int>();
        foreach (var part in text.Split(','))
        {
            if (part.Trim().Split('-') is not ([var _] or [var _, var _]) || !TryNumber(part.Trim().Split('-')[0], out var first)
                || !TryNumber(part.Trim().Split('-')[^1], out var last) || last < first)
            {
                return null;
            }
            for (var cpu = first; cpu <= last; cpu++)
            {
                if (!seen.Add(cpu))
                    return null;
                cpus.Add(cpu);
            }
        }
        return cpus.ToImmutable();
    }

    /// <summary>In the order in which they come, ranges drawn together.</summary>
    public static string Say(IEnumerable<int> cpus)
    {
        var ranges = new List<(int First, int Last)>();
        foreach (var cpu in cpus)
        {
            if (ranges.Count > 0 && ranges[^1].Last == cpu - 1)
                ranges[^1] = (ranges[^1].First, cpu);
            else
                ranges.Add((cpu, cpu));
        }
        return string.Join(',', ranges.Select(r => r.First == r.Last ? $"{r.First}" : $"{r.First}-{r.Last}"));
    }

    static bool TryNumber(string text, out int number) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number) && number < Most;
}

/// <summary>Where the threads of a VM's QEMU shall run; where nothing is said the host's scheduler decides.</summary>
/// <param name="Vcpus">The processors of each vCPU, by its number.</param>
/// <param name="Emulator">The processors of all other threads.</param>
public sealed record Pinning(ImmutableArray<ImmutableArray<int>> Vcpus, ImmutableArray<int> Emulator)
{
    public static Pinning None { get; } = new([], []);

    public bool IsNone() => Vcpus is [] && Emulator is [];
}
