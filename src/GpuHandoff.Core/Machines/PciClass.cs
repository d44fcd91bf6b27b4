namespace GpuHandoff.Machines;

/// <summary>A function's class code, <c>0xBBSSPP</c>: base class, subclass, programming interface (linux/pci_ids.h).</summary>
public readonly record struct PciClass(int Code)
{
    public bool IsDisplay() => Code >> 16 == 0x03;
    public bool IsVga() => Code >> 8 == 0x0300;
    public bool IsBridge() => Code >> 16 == 0x06;

    public bool IsStorage() => Code >> 16 == 0x01;

    /// <summary>What kind of function this is, in the words of the field.</summary>
    public string Say() => (Code >> 8) switch
    {
        0x0300 => "VGA controller",
        0x0302 => "3D controller",
        0x0380 => "display controller",
        0x0403 => "HD audio",
        0x0c03 => "USB controller",
        0x0c80 => "USB-C UCSI controller",
        0x0604 => "PCI bridge",
        0x0106 => "SATA controller",
        0x0108 => "NVMe controller",
        0x0200 => "network controller",
        _ => $"class {Code >> 8:x4}",
    };

    public override string ToString() => $"{Code:x6}";
}
