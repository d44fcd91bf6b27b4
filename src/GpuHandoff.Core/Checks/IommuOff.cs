using GpuHandoff.Goals;

namespace GpuHandoff.Checks;

static class IommuOff
{
    public static Check Check { get; } = new(
        "iommu-off", Target.Vfio,
        "Without an IOMMU a VM's device could write anywhere in memory, so vfio-pci takes no function that has no IOMMU group.",
        q => from function in q.Gpu.Functions
             where function.Group is null && !function.IsOnVfio()
             select new Finding(
                 "iommu-off",
                 q.Machine.IommuIsOn ? $"{function.Address} has no IOMMU group" : "the IOMMU is off",
                 [$"/sys/bus/pci/devices/{function.Address}/iommu_group is not there"],
                 "switch VT-d or AMD-Vi on in the firmware; on Intel with a kernel before 6.8 add intel_iommu=on to its command line"));
}
