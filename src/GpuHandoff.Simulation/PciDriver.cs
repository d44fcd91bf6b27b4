namespace GpuHandoff.Simulation;

/// <summary>A PCI driver: what it takes and how it comes and goes (struct pci_driver).</summary>
sealed class PciDriver(string name, Func<PciHardware, bool> table)
{
    public string Name { get; } = name;

    /// <summary>The module that registered it, null for a driver built in without a module folder.</summary>
    public string? Module { get; init; }

    /// <summary>The table only counts where driver_override names the driver (vfio_pci_table, PCI_ID_F_VFIO_DRIVER_OVERRIDE).</summary>
    public bool OverrideOnly { get; init; }

    /// <summary>driver_managed_dma: may stay in a group that a VFIO user owns (pcieport, pci-stub, vfio-pci).</summary>
    public bool ManagesDma { get; init; }

    /// <summary>0 or the errno that probe returns.</summary>
    public Func<PciDevice, int> Probe { get; init; } = static _ => 0;

    /// <summary>What remove does before it may have to wait.</summary>
    public Action<PciDevice> BeginRemove { get; init; } = static _ => { };

    /// <summary>Whether remove can come to its end now.</summary>
    public Func<PciDevice, bool> MayLeave { get; init; } = static _ => true;

    public Action<PciDevice> Leave { get; init; } = static _ => { };

    public List<(int Vendor, int Device)> DynamicIds { get; } = [];

    public bool TableMatches(PciHardware hardware) => !OverrideOnly && table(hardware);

    public bool HasDynamicId(PciHardware hardware) => DynamicIds.Contains((hardware.Vendor, hardware.Device));

    /// <summary>drivers/pci/pci-driver.c:pci_match_device: the override rules, then dynamic ids, then the table.</summary>
    public bool Matches(PciDevice device) => device.Override is { } only
        ? only == Name
        : HasDynamicId(device.Hardware) || TableMatches(device.Hardware);
}
