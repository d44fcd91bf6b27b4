using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>
/// The PCI bus of the driver core: matching, binding, removal and enumeration (drivers/base/dd.c, drivers/base/bus.c,
/// drivers/pci/pci-driver.c, drivers/pci/pci-sysfs.c).
/// </summary>
sealed partial class PciBus(SimulatedKernel kernel)
{
    readonly List<PciHardware> slots = [];
    readonly SortedDictionary<PciAddress, PciDevice> devices = [];
    readonly List<PciDriver> drivers = [];
    PciDevice? dropLater;

    public IEnumerable<PciDevice> Devices => devices.Values;
    public IReadOnlyList<PciDriver> Drivers => drivers;

    /// <summary>The call that has pci_rescan_remove_lock and did not come back.</summary>
    public string? RescanLockHolder { get; set; }

    public PciDevice? Find(string address) =>
        PciAddress.TryParse(address, out var parsed) && parsed.ToString() == address ? Find(parsed) : null;

    public PciDevice? Find(PciAddress address) => devices.GetValueOrDefault(address);

    public PciDriver? FindDriver(string name) => drivers.Find(driver => driver.Name == name);

    public void Plug(PciHardware hardware)
    {
        slots.Add(hardware);
        devices.Add(hardware.Address, new(hardware));
    }

    public void Register(PciDriver driver)
    {
        drivers.Add(driver);
        Attach(driver);
    }

    /// <summary>drivers/base/driver.c:driver_unregister: takes the driver off all its devices first.</summary>
    public void Unregister(PciDriver driver)
    {
        foreach (var device in Devices.Where(device => device.Bound == driver).ToList())
            Remove(device);
        drivers.Remove(driver);
    }

    /// <summary>drivers/base/dd.c:driver_attach: every unbound device that the driver matches.</summary>
    public void Attach(PciDriver driver)
    {
        foreach (var device in Devices.Where(device => device is { Bound: null, LockHolder: null } && driver.Matches(device)).ToList())
            Probe(driver, device);
    }

    /// <summary>drivers/base/dd.c:device_attach: the drivers in the order of their registration, until one takes it.</summary>
    public void Attach(PciDevice device)
    {
        foreach (var driver in drivers.Where(driver => driver.Matches(device)).ToList())
        {
            if (device.Bound is null)
                Probe(driver, device);
        }
    }

    public int Probe(PciDriver driver, PciDevice device)
    {
        // drivers/pci/pci-driver.c:pci_dma_configure: a host driver may not join a group that a VFIO user owns.
        if (!driver.ManagesDma && device.Hardware.IommuGroup is { } group && kernel.Guests.OwnerOf(group) is not null)
            return Errno.Busy;
        if (kernel.ProbeFaults.TryGetValue((driver.Name, device.Address), out var fault) && fault.Left > 0)
        {
            fault.Left--;
            return fault.Errno;
        }
        if (device.Lost)
            return driver.Name == "nvidia" ? Errno.NotPermitted : Errno.InputOutput;
        var result = driver.Probe(device);
        if (result == 0)
        {
            device.Bound = driver;
            device.WasBound = true;
        }
        return result;
    }

    /// <summary>drivers/base/dd.c:device_release_driver: under the device's lock, for as long as remove takes.</summary>
    public void Remove(PciDevice device)
    {
        kernel.TakeLock(device);
        if (device.Bound is not { } driver)
            return;
        device.LockHolder = kernel.CallNow;
        device.Removing = true;
        driver.BeginRemove(device);
        kernel.WaitUntil(() => !device.Removing);
    }

    /// <summary>Lets removals that waited for a user come to their end.</summary>
    public void Settle()
    {
        foreach (var device in Devices.Where(device => device is { Removing: true, NeverLets: false }).ToList())
        {
            if (device.Bound is not { } driver || !driver.MayLeave(device))
                continue;
            driver.Leave(device);
            device.Bound = null;
            device.Removing = false;
            device.LockHolder = null;
        }
        if (dropLater is { Removing: false } late)
        {
            dropLater = null;
            Drop(late);
            RescanLockHolder = null;
        }
    }
}

/// <summary>A probe that fails so many times, or until a reset of a certain kind.</summary>
sealed class ProbeFault(int errno, int times, string? until)
{
    public int Errno { get; } = errno;
    public int Left { get; set; } = times;
    public string? Until { get; } = until;
}
