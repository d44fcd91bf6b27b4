using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>What sits in the slot: everything about a PCI function that software cannot change.</summary>
public sealed record PciHardware(PciAddress Address, int Vendor, int Device, int Class)
{
    /// <summary>The bridge above, null on a root bus.</summary>
    public PciAddress? Behind { get; init; }

    public int? IommuGroup { get; init; }
    public int SubsystemVendor { get; init; } = 0x1043;
    public int SubsystemDevice { get; init; } = 0x889d;
    public int Revision { get; init; } = 0xa1;
    public int NumaNode { get; init; } = -1;

    /// <summary>What NVIDIA's procfs calls it.</summary>
    public string Model { get; init; } = "";

    /// <summary>drivers/pci/pci.c:pci_reset_fn_methods; empty: no <c>reset</c> and no <c>reset_method</c> file.</summary>
    public IReadOnlyList<string> ResetMethods { get; init; } = [];

    /// <summary>The firmware's first display (drivers/pci/vgaarb.c:vga_default_device).</summary>
    public bool BootVga { get; init; }

    public IReadOnlyList<(ulong Start, ulong End, ulong Flags)> Resources { get; init; } = [];

    /// <summary>What is plugged into a USB controller, by its product's name.</summary>
    public IReadOnlyList<string> UsbDevices { get; init; } = [];

    /// <summary>The sizes that a memory window can have, as <c>resourceN_resize</c> shows them: bit n for 2^n MiB.</summary>
    public IReadOnlyDictionary<int, ulong> BarSizes { get; init; } = new Dictionary<int, ulong>();

    internal bool IsBridge => Class >> 8 == 0x0604;
    internal bool IsVga => Class >> 8 == 0x0300;

    // kernel-open/nvidia/nv-pci-table.c: the class to the last bit, so 0x038000 is none.
    internal bool IsNvidiaGpu => Vendor == 0x10de && (Class is 0x030000 or 0x030200);

    // drivers/pci/pci-sysfs.c:modalias_show
    internal string Modalias => $"pci:v{Vendor:X8}d{Device:X8}sv{SubsystemVendor:X8}sd{SubsystemDevice:X8}"
        + $"bc{Class >> 16:X2}sc{(Class >> 8) & 0xff:X2}i{Class & 0xff:X2}";
}
