namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>A BAR0 that keeps what is written to it; the kinds of controllers say which registers are special.</summary>
abstract class MemoryRegisters : IRegisters
{
    readonly byte[] memory;

    protected MemoryRegisters(uint size)
    {
        memory = new byte[size];
        Reset();
    }

    public ulong Read(int bar, uint offset, int length)
    {
        var value = 0ul;
        for (var i = 0; i < length && offset + i < memory.Length; i++)
            value |= (ulong)memory[offset + i] << (8 * i);
        return value;
    }

    public void Write(int bar, uint offset, ulong value, int length)
    {
        if (Accept(offset, ref value))
            Put(offset, value, length);
    }

    public void Reset()
    {
        Array.Clear(memory);
        PowerOn();
    }

    protected void Put(uint offset, ulong value, int length)
    {
        for (var i = 0; i < length && offset + i < memory.Length; i++)
            memory[offset + i] = (byte)(value >> (8 * i));
    }

    protected abstract void PowerOn();

    /// <summary>Whether a write is kept, and as what.</summary>
    protected abstract bool Accept(uint offset, ref ulong value);
}
