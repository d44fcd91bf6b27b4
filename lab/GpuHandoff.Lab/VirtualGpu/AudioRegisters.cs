namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>An HD Audio controller without a codec: snd_hda_intel binds it and makes a card ("no codecs found!").</summary>
sealed class AudioRegisters() : MemoryRegisters(0x4000)
{
    const uint StateChange = 0x0e;

    protected override void PowerOn()
    {
        Put(0x00, 0x4401, 2);   // GCAP: 4 output streams, 64-bit addresses
        Put(0x02, 0x0100, 2);   // version 1.0
    }

    // A bit set in STATESTS says that a codec answered; the driver clears bits by writing ones, memory would set them.
    protected override bool Accept(uint offset, ref ulong value) => offset != StateChange;
}
