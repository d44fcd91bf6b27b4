using GpuHandoff.Goals;
using GpuHandoff.Machines;

namespace GpuHandoff.Checks;

static class VfioMissing
{
    public static Check Check { get; } = new(
        "vfio-pci-missing", Target.Vfio,
        "vfio-pci is the driver that lends a function to a VM.",
        q => q.Machine.Drivers.Contains(Owner.Vfio) || q.Machine.Loadable.Contains("vfio_pci")
            ? []
            : [new(
                "vfio-pci-missing",
                "this kernel has no vfio-pci driver",
                [$"no /sys/bus/pci/drivers/vfio-pci, and modprobe finds no module vfio-pci for kernel {q.Machine.Kernel()}"],
                "install the kernel's own modules (on Debian linux-image-$(uname -r), on Proxmox proxmox-kernel-$(uname -r))")]);
}
