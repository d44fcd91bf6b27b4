namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>One region of registers or memory: 32-bit, as QEMU's proxy device has no other.</summary>
/// <param name="Size">A power of two.</param>
public sealed record Bar(int Index, uint Size, bool Prefetchable = false)
{
    /// <summary>The low bits of the BAR's register: bit 3 says prefetchable, the others memory and 32-bit.</summary>
    public uint Flags() => Prefetchable ? 8u : 0;
}
