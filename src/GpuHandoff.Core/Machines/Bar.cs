namespace GpuHandoff.Machines;

/// <summary>A base address register: a window of the function in memory.</summary>
/// <param name="Index">0 to 5.</param>
/// <param name="Start">Physical address.</param>
/// <param name="Size">Bytes.</param>
public sealed record Bar(int Index, ulong Start, ulong Size);
