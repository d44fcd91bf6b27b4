using GpuHandoff.Goals;
using GpuHandoff.Survey;

namespace GpuHandoff.Checks;

static class HostDriverMissing
{
    public static Check Check { get; } = new(
        "host-driver-missing", Target.Host,
        "A card is taken from vfio-pci only where a driver waits for it.",
        q => from function in q.Gpu.Functions
             let driver = HomeComing.Of(q, function)?.Driver
             where driver is not null && driver != function.Owner.Driver
             where !q.Machine.Drivers.Contains(driver) && !q.Machine.Module(Profile.ModuleOf(driver)).IsThere()
             where !q.Machine.Loadable.Contains(Profile.ModuleOf(driver))
             // A sibling can do without: only the card itself is worth a refusal.
             where function.Address == q.Gpu.Address
             select new Finding(
                 "host-driver-missing",
                 $"no driver {driver} is installed for {function}",
                 [$"no /sys/bus/pci/drivers/{driver}, and modprobe finds no {Profile.ModuleOf(driver)} for kernel {q.Machine.Kernel()}"],
                 driver == "nvidia"
                     ? "install NVIDIA's driver for this kernel (with DKMS: dkms status tells whether it was built)"
                     : $"install the module {Profile.ModuleOf(driver)}"));
}
