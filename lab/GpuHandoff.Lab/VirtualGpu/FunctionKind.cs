namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>What a function of the card is, in PCI's words.</summary>
public sealed record FunctionKind(string Name, int Device, int Class, IReadOnlyList<Bar> Bars)
{
    public const int Nvidia = 0x10de;
    const uint MiB = 1 << 20;

    /// <summary>The GPU itself: an RTX 4090. Driver 550 looks for three BARs; all 32-bit they are 0, 1 and 2.</summary>
    public static readonly FunctionKind Vga = new("vga", 0x2684, 0x030000,
        [new(0, 16 * MiB), new(1, 64 * MiB, Prefetchable: true), new(2, 32 * MiB, Prefetchable: true)]);

    public static readonly FunctionKind Audio = new("audio", 0x22ba, 0x040300, [new(0, 0x4000)]);

    /// <summary>The USB controller of an RTX 20 card's USB-C port; xhci_hcd binds by class.</summary>
    public static readonly FunctionKind Usb = new("usb", 0x1ada, 0x0c0330, [new(0, 0x10000)]);

    /// <summary>The USB-C port's controller. Debian's kernel has no driver for it (I2C_NVIDIA_GPU is not set).</summary>
    public static readonly FunctionKind Ucsi = new("ucsi", 0x1adb, 0x0c8000, [new(0, 0x1000)]);

    public override string ToString() => $"{Name} {Nvidia:x4}:{Device:x4}";
}
