using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>What a write to the bus's files does (drivers/base/bus.c, drivers/pci/pci-driver.c, drivers/pci/pci-sysfs.c).</summary>
sealed partial class PciBus
{
    // ---- the driver's files ----

    /// <summary>drivers/base/bus.c:bind_store</summary>
    public void Bind(PciDriver driver, string text)
    {
        if (Find(Word(text)) is not { } device || !driver.Matches(device))
            throw new Refusal(Errno.NoDevice);
        kernel.TakeLock(device);
        if (device.Bound is not null)
            throw new Refusal(Errno.Busy);
        if (Probe(driver, device) is var errno and not 0)
            throw new Refusal(errno);
    }

    /// <summary>drivers/base/bus.c:unbind_store</summary>
    public void Unbind(PciDriver driver, string text)
    {
        if (Find(Word(text)) is not { } device || device.Bound != driver)
            throw new Refusal(Errno.NoDevice);
        Remove(device);
    }

    /// <summary>drivers/pci/pci-driver.c:new_id_store: the new id takes every unbound match at once, twins included.</summary>
    public void AddId(PciDriver driver, string text)
    {
        var id = Id(text);
        if (driver.DynamicIds.Contains(id) || driver.TableMatches(new(default, id.Vendor, id.Device, 0)))
            throw new Refusal(Errno.Exists);
        driver.DynamicIds.Add(id);
        Attach(driver);
    }

    /// <summary>drivers/pci/pci-driver.c:remove_id_store: dynamic ids only, and nothing is unbound.</summary>
    public static void RemoveId(PciDriver driver, string text)
    {
        if (!driver.DynamicIds.Remove(Id(text)))
            throw new Refusal(Errno.NoDevice);
    }

    /// <summary>drivers/base/bus.c:drivers_probe_store: success even where nothing was bound.</summary>
    public void DriversProbe(string text)
    {
        var device = Find(Word(text)) ?? throw new Refusal(Errno.NoDevice);
        kernel.TakeLock(device);
        if (device.Bound is null)
            Attach(device);
    }

    // ---- the function's files ----

    /// <summary>
    /// drivers/base/driver.c:driver_set_override: the text to the first newline, nothing or a bare newline clears. An
    /// empty write never gets here: the kernel's sysfs drops it (fs/kernfs/file.c).
    /// </summary>
    public void SetOverride(PciDevice device, string text)
    {
        if (text.Length == 0)
            return;
        if (kernel.OverrideTakesDeviceLock)
            kernel.TakeLock(device);
        if (text.Length >= 4095)
            throw new Refusal(Errno.Invalid);
        var line = text.Split('\n')[0];
        device.Override = line.Length == 0 ? null : line;
    }

    /// <summary>drivers/pci/pci-sysfs.c:remove_store: the global rescan lock first, then the driver's remove.</summary>
    public void RemoveFromBus(PciDevice device, string text)
    {
        if (!IsOne(text))
            return;
        TakeRescanLock();
        if (device.Bound is not null)
            kernel.Hazard($"{device.Address} was removed from the bus under {device.Driver}");
        RescanLockHolder = kernel.CallNow;
        try
        {
            Drop(device);
            RescanLockHolder = null;
        }
        catch (NoAnswer)
        {
            dropLater = device;
            throw;
        }
    }

    void Drop(PciDevice device)
    {
        foreach (var child in Devices.Where(child => child.Hardware.Behind == device.Address).ToList())
            Drop(child);
        Remove(device);
        devices.Remove(device.Address);
        kernel.Drm.Forget(device);
    }

    /// <summary>
    /// drivers/pci/probe.c:pci_rescan_bus: what is there again is a new device, without override, and finds its driver
    /// by itself (drivers/pci/bus.c:pci_bus_add_device; 6.12 does not ask drivers_autoprobe).
    /// </summary>
    public void Rescan(Func<PciHardware, bool> below, string text)
    {
        if (!IsOne(text))
            return;
        TakeRescanLock();
        var added = new List<PciDevice>();
        foreach (var hardware in slots.Where(slot => !devices.ContainsKey(slot.Address) && below(slot)))
        {
            var device = new PciDevice(hardware) { Lost = kernel.LostHardware.Contains(hardware.Address) };
            if (device.Lost)
                continue;
            foreach (var (slot, size) in kernel.SizesAtRescan.Where(entry => entry.Key.Device == hardware.Address))
                device.Resize(slot.Bar, size);
            devices.Add(hardware.Address, device);
            added.Add(device);
        }
        // What was gone had its registers set anew, if only by the enumeration.
        foreach (var device in added)
            kernel.HasBeenReset(device, "rescan");
        foreach (var device in added.OrderBy(device => device.Address))
            Attach(device);
        // udev sees the new device and loads its driver by its modalias.
        foreach (var device in added.Where(device => device.Bound is null && kernel.UdevLoadsDrivers))
            kernel.Modules.LoadFor(device);
    }

    public bool IsBelow(PciHardware hardware, PciAddress bridge) =>
        hardware.Behind is { } up && (up == bridge || (slots.Find(slot => slot.Address == up) is { } parent && IsBelow(parent, bridge)));

    /// <summary>The functions on a bus and below it.</summary>
    public bool IsOnBus(PciHardware hardware, int domain, int bus) =>
        (hardware.Address.Domain == domain && hardware.Address.Bus == bus)
        || slots.Exists(slot => slot.Address.Domain == domain && slot.Address.Bus == bus && IsBelow(hardware, slot.Address));

    /// <summary>drivers/pci/pci-sysfs.c:__resource_resize_store: the number of a bit of the mask, and no driver at work.</summary>
    public void ResizeBar(PciDevice device, int bar, string text)
    {
        if (!int.TryParse(Word(text), NumberStyles.None, CultureInfo.InvariantCulture, out var bit))
            throw new Refusal(Errno.Invalid);
        kernel.TakeLock(device);
        if (device.Driver is not null)
            throw new Refusal(Errno.Busy);
        if (bit > 42 || (device.Hardware.BarSizes[bar] >> bit & 1) == 0)
            throw new Refusal(Errno.Invalid);
        device.Resize(bar, 1UL << (bit + 20));
    }

    public IEnumerable<(int Domain, int Bus)> Buses() =>
        slots.Select(slot => (slot.Address.Domain, slot.Address.Bus)).Distinct().Where(bus => devices.Values.Any(
            device => (device.Address.Domain, device.Address.Bus) == bus
                || slots.Exists(slot => (slot.Address.Domain, slot.Address.Bus) == bus && slot.Behind == device.Address)));

    public bool HasBus(int domain, int bus) =>
        bus == 0 || slots.Exists(slot => slot.Address.Domain == domain && slot.Address.Bus == bus);

    /// <summary>drivers/pci/pci-sysfs.c:reset_store; drivers/pci/pci.c:pci_reset_function</summary>
    public void Reset(PciDevice device, string text)
    {
        if (!IsOne(text))
            throw new Refusal(Errno.Invalid);
        kernel.TakeLock(device);
        // reset does not ask whether a driver is at work: nvidia has no reset_prepare.
        if (device.Driver is not (null or "vfio-pci"))
            kernel.Hazard($"{device.Address} was reset under {device.Driver}");
        if (device.VfioUsers > 0)
            kernel.Hazard($"{device.Address} was reset under a guest");
        // pci.c:pci_parent_bus_reset: with a sibling on the bus a bus reset is refused, listed or not.
        var works = device.ResetMethods.FirstOrDefault(method =>
            method != "bus" || !Devices.Any(other => other != device && other.Address.SharesSlotWith(device.Address)));
        if (works is null)
            throw new Refusal(Errno.NotTypewriter);
        // drivers/pci/pci.c:pci_dev_wait polls for PCIE_RESET_READY_POLL_MS, and then gives up.
        kernel.Spend(device.Lost ? TimeSpan.FromSeconds(60) : TimeSpan.FromMilliseconds(100));
        if (device.Lost)
            throw new Refusal(Errno.NotTypewriter);
        kernel.HasBeenReset(device, works);
    }

    /// <summary>
    /// drivers/pci/pci-sysfs.c:reset_subordinate_store: a secondary bus reset of all that is below, under try-locks.
    /// </summary>
    public void ResetBelow(PciDevice bridge, string text)
    {
        if (!IsOne(text))
            throw new Refusal(Errno.Invalid);
        var below = Devices.Where(device => IsBelow(device.Hardware, bridge.Address)).ToList();
        if (below.Exists(device => device.LockHolder is not null))
            throw new Refusal(Errno.TryAgain);
        foreach (var device in below)
        {
            if (device.Driver is not (null or "vfio-pci") || device.VfioUsers > 0)
                kernel.Hazard($"{device.Address} was reset under {device.Driver}");
        }
        kernel.Spend(TimeSpan.FromMilliseconds(100));
        foreach (var device in below)
            kernel.HasBeenReset(device, "subordinate");
    }

    /// <summary>drivers/pci/pci.c:reset_method_store</summary>
    public static void SetResetMethod(PciDevice device, string text)
    {
        var words = text.Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries);
        if (words is ["default"])
            device.ResetMethods = device.Hardware.ResetMethods;
        else if (words.All(device.Hardware.ResetMethods.Contains))
            device.ResetMethods = words;
        else
            throw new Refusal(Errno.Invalid);
    }

    void TakeRescanLock() => kernel.WaitUntil(() => RescanLockHolder is null);

    public static bool IsOne(string text) => Word(text) is "1" or "0x1";

    static string Word(string text) => text.TrimEnd('\n');

    static (int Vendor, int Device) Id(string text) =>
        text.Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries) is [var vendor, var device, ..]
        && int.TryParse(vendor, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var v)
        && int.TryParse(device, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var d)
            ? (v, d)
            : throw new Refusal(Errno.Invalid);
}
