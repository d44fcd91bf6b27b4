namespace GpuHandoff.Machines;

/// <summary>A base address register: a window of the function in memory.</summary>
/// <param name="Index">0 to 5.</param>
/// <param name="Start">Physical address.</param>
/// <param name="Size">Bytes.</param>
public sealed record Bar(int Index, ulong Start, ulong Size)
{
    /// <summary>Bytes in the largest unit that divides by a power of 1024.</summary>
    public static string Say(ulong bytes) => bytes switch
    {
        >= 1UL << 40 => $"{bytes >> 40}T",
        >= 1UL << 30 => $"{bytes >> 30}G",
        >= 1UL << 20 => $"{bytes >> 20}M",
        >= 1UL << 10 => $"{bytes >> 10}K",
        _ => $"{bytes}B",
    };
}
