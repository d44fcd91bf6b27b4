namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>An xHCI controller with one empty port of each speed: xhci_hcd starts it and nothing is ever plugged in.</summary>
sealed class UsbRegisters() : MemoryRegisters(0x10000)
{
    const uint Operational = 0x40;
    const uint UsbCommand = Operational;
    const uint UsbStatus = Operational + 4;
    const uint ExtendedCapabilities = 0x400;

    protected override void PowerOn()
    {
        Put(0x00, 0x0100_0000 | Operational, 4);        // version 1.0, length of the capability registers
        Put(0x04, (2u << 24) | (1 << 8) | 8, 4);        // HCSPARAMS1: 2 ports, 1 interrupter, 8 slots
        Put(0x10, (ExtendedCapabilities / 4) << 16, 4); // HCCPARAMS1: where the extended capabilities are
        Put(0x14, 0x2000, 4);                           // doorbells
        Put(0x18, 0x1000, 4);                           // run-time registers
        Put(UsbStatus, 1, 4);                           // halted
        Put(Operational + 8, 1, 4);                     // pages of 4 KiB

        // Supported Protocol, once for USB 2 (port 1) and once for USB 3 (port 2).
        Put(ExtendedCapabilities, 0x0200_0402, 4);
        Put(ExtendedCapabilities + 4, 0x20425355, 4);
        Put(ExtendedCapabilities + 8, 0x0000_0101, 4);
        Put(ExtendedCapabilities + 0x10, 0x0300_0002, 4);
        Put(ExtendedCapabilities + 0x14, 0x20425355, 4);
        Put(ExtendedCapabilities + 0x18, 0x0000_0102, 4);
    }

    protected override bool Accept(uint offset, ref ulong value)
    {
        switch (offset)
        {
            case UsbCommand:
                if ((value & 2) != 0)
                    Reset();                            // the driver waits until the bit is clear again
                value &= ~2ul;
                Put(UsbStatus, (value & 1) == 0 ? 1u : 0, 4);
                return true;
            case UsbStatus:
                return false;                           // its bits are cleared by writing ones
            case >= Operational + 0x400 and < Operational + 0x420:
                return false;                           // the ports: empty, whatever is asked of them
            default:
                return true;
        }
    }
}
