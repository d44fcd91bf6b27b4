namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>What is behind a function's BARs.</summary>
interface IRegisters
{
    ulong Read(int bar, uint offset, int length);

    void Write(int bar, uint offset, ulong value, int length);

    /// <summary>A reset puts the registers back to their first values.</summary>
    void Reset();
}
