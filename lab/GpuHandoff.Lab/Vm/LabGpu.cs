using GpuHandoff.Lab.VirtualGpu;

namespace GpuHandoff.Lab.Vm;

/// <summary>A card to plug into the machine.</summary>
/// <param name="Functions">Its functions, from .0 on.</param>
/// <param name="Stranger">Put it behind a bridge together with a network card, so that both are in one IOMMU group.</param>
public sealed record LabGpu(IReadOnlyList<FunctionKind> Functions, bool Stranger = false)
{
    /// <summary>Graphics and HDMI audio, as most cards have it.</summary>
    public static readonly LabGpu Standard = new([FunctionKind.Vga, FunctionKind.Audio]);

    /// <summary>With the USB-C port's controllers, as an RTX 20 card has them.</summary>
    public static readonly LabGpu WithUsb = new([FunctionKind.Vga, FunctionKind.Audio, FunctionKind.Usb, FunctionKind.Ucsi]);
}
