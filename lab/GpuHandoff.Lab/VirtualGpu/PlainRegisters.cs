namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>Memory and nothing else, for a function that no driver of the guest talks to.</summary>
sealed class PlainRegisters() : MemoryRegisters(0x1000)
{
    protected override void PowerOn()
    {
    }

    protected override bool Accept(uint offset, ref ulong value) => true;
}
