using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>A running VM that has IOMMU groups through /dev/vfio/N (drivers/vfio/group.c).</summary>
public sealed class SimulatedVm
{
    internal SimulatedVm(string name, SimulatedProcess process, IReadOnlyList<PciAddress> functions)
    {
        Name = name;
        Process = process;
        Functions = functions;
    }

    public string Name { get; }
    public SimulatedProcess Process { get; }
    public IReadOnlyList<PciAddress> Functions { get; }
}

sealed class Guests(SimulatedKernel kernel)
{
    readonly Dictionary<int, SimulatedVm> owners = [];

    public SimulatedVm? OwnerOf(int group) => owners.GetValueOrDefault(group);

    /// <summary>drivers/iommu/iommu.c:iommu_group_claim_dma_owner: a group goes whole or not at all.</summary>
    public SimulatedVm Start(string name, IReadOnlyList<PciAddress> functions, string? cgroup = null)
    {
        var devices = functions.Select(address => kernel.Bus.Find(address) ?? throw Refused(Errno.NoDevice, $"no {address}")).ToList();
        if (devices.Find(device => device.Driver != "vfio-pci") is { } stray)
            throw Refused(Errno.NoEntry, $"{stray.Address} is on {stray.Driver ?? "no driver"}, not on vfio-pci");
        var groups = devices.Select(device => device.Hardware.IommuGroup!.Value).Distinct().ToList();
        foreach (var group in groups)
        {
            if (OwnerOf(group) is { } owner)
                throw Refused(Errno.Busy, $"group {group} is with {owner.Name}");
            if (kernel.Bus.Devices.FirstOrDefault(device => device.Hardware.IommuGroup == group
                && device.Bound is { ManagesDma: false }) is { } host)
                throw Refused(Errno.NotPermitted, $"group {group} is not viable: {host.Address} is on {host.Driver}");
        }

        var vm = new SimulatedVm(name, kernel.StartProcess("kvm", cgroup ?? $"/qemu.slice/{name}.scope"), [.. functions]);
        foreach (var group in groups)
            owners.Add(group, vm);
        vm.Process.Add("/dev/vfio/vfio", new(10, 196, 0x1b6, 0, 0), static () => { });
        foreach (var group in groups)
            vm.Process.Add($"/dev/vfio/{group}", kernel.Nodes.Find($"/dev/vfio/{group}"), () => owners.Remove(group));
        foreach (var device in devices)
        {
            // drivers/vfio/pci/vfio_pci_core.c:vfio_pci_core_enable resets the function first.
            device.VfioUsers++;
            var module = kernel.Modules.Find("vfio_pci");
            if (module is not null)
                module.Files++;
            vm.Process.Add("anon_inode:[vfio-device]", null, () =>
            {
                device.VfioUsers--;
                if (module is not null)
                    module.Files--;
            });
        }
        return vm;

        KernelRefused Refused(int errno, string reason) => new($"start VM {name}", errno, reason);
    }
}
