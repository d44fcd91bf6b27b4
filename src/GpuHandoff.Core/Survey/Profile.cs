using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>What is known of drivers without asking the machine: which one a function wants, and whose module it is.</summary>
public static class Profile
{
    /// <summary>
    /// The driver that the host would want for a function, null where only the kernel can say. The aim of a return: with
    /// dynamic IDs in vfio-pci, which nobody can list, a plain probe may give the card to vfio-pci again.
    /// </summary>
    public static string? HomeDriver(PciFunction function) => (function.Id.Vendor, function.Class.Code >> 8) switch
    {
        (PciId.Nvidia, 0x0300 or 0x0302) => "nvidia",
        (PciId.Nvidia, 0x0c80) => "nvidia-gpu",
        (_, 0x0403) => "snd_hda_intel",
        (_, 0x0c03) when (function.Class.Code & 0xff) == 0x30 => "xhci_hcd",
        _ => null,
    };

    /// <summary>The module that brings a PCI driver: sysfs names the driver, modprobe wants the module.</summary>
    public static string ModuleOf(string driver) => driver switch
    {
        "xhci_hcd" => "xhci_pci",
        "nvidia-gpu" => "i2c_nvidia_gpu",
        "bochs-drm" => "bochs",
        _ => driver.Replace('-', '_'),
    };
}
