using System.Buffers.Binary;

namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>
/// The 256 bytes that say what a function is. It has capabilities for power management, MSI, PCI Express (with function
/// level reset) and advanced features (with the other function level reset); QEMU's proxy knows no extended space.
/// </summary>
sealed class ConfigSpace
{
    const int Command = 0x04;
    const int FirstBar = 0x10;
    const int PowerManagement = 0x60;
    const int Msi = 0x68;
    const int Express = 0x78;
    const int AdvancedFeatures = 0xb4;

    // PCI_EXP_DEVCTL is at Express + 8; its bit 15 (here: bit 7 of the upper byte) starts a function level reset.
    const int ExpressReset = Express + 9;
    const int AdvancedReset = AdvancedFeatures + 4;

    readonly byte[] bytes = new byte[256];
    readonly byte[] writable = new byte[256];
    readonly FunctionKind kind;
    readonly Action<string> onReset;

    public ConfigSpace(FunctionKind kind, Action<string> onReset)
    {
        this.kind = kind;
        this.onReset = onReset;

        Put16(0x00, FunctionKind.Nvidia);
        Put16(0x02, kind.Device);
        Put16(0x06, 0x0010);            // status: there is a capability list
        bytes[0x08] = 0xa1;
        bytes[0x09] = (byte)kind.Class;
        Put16(0x0a, kind.Class >> 8);
        bytes[0x0e] = 0x80;             // multifunction; without it a function gets an IOMMU group of its own after a rescan
        Put16(0x2c, FunctionKind.Nvidia);
        Put16(0x2e, 0x16f4);
        bytes[0x34] = PowerManagement;
        bytes[0x3d] = 1;                // an interrupt pin; nvidia.ko wants an IRQ (nv-pci.c:nv_pci_probe)
        ClearBars();

        Capability(PowerManagement, 0x01, next: Msi);
        Put16(PowerManagement + 2, 0x0003);
        Put16(PowerManagement + 4, 0x0008);     // D3hot to D0 keeps the state: so "pm" is no reset method

        Capability(Msi, 0x05, next: Express);
        Put16(Msi + 2, 0x0080);

        Capability(Express, 0x10, next: AdvancedFeatures);
        Put16(Express + 2, 0x0002);
        Put32(Express + 4, (1u << 28) | 0x8001);    // device capabilities, bit 28: function level reset
        Put32(Express + 12, 0x101);
        Put16(Express + 18, 0x1101);

        Capability(AdvancedFeatures, 0x13, next: 0);
        bytes[AdvancedFeatures + 2] = 6;
        bytes[AdvancedFeatures + 3] = 3;

        Writable(Command, 2);
        Writable(0x0c, 1);
        Writable(0x3c, 1);
        Writable(PowerManagement + 4, 2);
        Writable(Msi + 2, 2);
        Writable(Msi + 4, 12);
        Writable(Express + 8, 2);
        Writable(Express + 16, 2);
        foreach (var bar in kind.Bars)
            BinaryPrimitives.WriteUInt32LittleEndian(writable.AsSpan(FirstBar + (4 * bar.Index)), ~(bar.Size - 1) & ~0xfu);
    }

    public uint Read(int address, int length)
    {
        var value = 0u;
        for (var i = 0; i < length; i++)
            value |= (uint)At(bytes, address + i) << (8 * i);
        return value;
    }

    public void Write(int address, uint value, int length)
    {
        for (var i = 0; i < length; i++)
        {
            var here = address + i;
            var written = (byte)(value >> (8 * i));
            if (here == ExpressReset && (written & 0x80) != 0)
            {
                Reset("flr");
                written &= 0x7f;
            }
            if (here == AdvancedReset && (written & 0x01) != 0)
                Reset("af_flr");
            var may = At(writable, here);
            bytes[here] = (byte)((bytes[here] & ~may) | (written & may));
        }
    }

    public void Reset(string how)
    {
        onReset(how);
        ClearBars();
        Put16(Command, 0);
    }

    /// <summary>The BAR that a guest-physical address falls into, and how far in.</summary>
    public (Bar Bar, uint Offset)? Find(ulong address)
    {
        foreach (var bar in kind.Bars)
        {
            var start = Read(FirstBar + (4 * bar.Index), 4) & ~0xfu;
            if (start != 0 && address >= start && address < (ulong)start + bar.Size)
                return (bar, (uint)(address - start));
        }
        return null;
    }

    static byte At(byte[] space, int address) => address is >= 0 and < 256
        ? space[address]
        : throw new ProtocolError($"configuration address {address:x} is outside the 256 bytes");

    void ClearBars()
    {
        foreach (var bar in kind.Bars)
            Put32(FirstBar + (4 * bar.Index), bar.Flags());
    }

    void Capability(int at, byte id, int next)
    {
        bytes[at] = id;
        bytes[at + 1] = (byte)next;
    }

    void Writable(int at, int length) => writable.AsSpan(at, length).Fill(0xff);

    void Put16(int at, int value) => BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(at), (ushort)value);

    void Put32(int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(at), value);
}
