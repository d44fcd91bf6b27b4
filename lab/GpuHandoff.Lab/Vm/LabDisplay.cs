namespace GpuHandoff.Lab.Vm;

/// <summary>What shows a picture, beside the virtual GPUs: those have none.</summary>
public enum LabDisplay
{
    None,

    /// <summary>QEMU's bochs-display: a display controller without VGA's text mode, unknown to the firmware.</summary>
    Bochs,

    /// <summary>
    /// QEMU's VGA: class 0300, the machine's boot VGA, and the only card with an option ROM. The firmware has a picture on it,
    /// then the kernel's text console or its firmware framebuffer, then bochs-drm with a DRM console.
    /// </summary>
    Vga,
}

/// <summary>What starts the kernel.</summary>
public enum LabFirmware
{
    /// <summary>A PC's BIOS: the display is in VGA's text mode when the kernel starts.</summary>
    SeaBios,

    /// <summary>UEFI (OVMF): it leaves a framebuffer to the kernel, which Debian's takes by efifb.</summary>
    Ovmf,
}
