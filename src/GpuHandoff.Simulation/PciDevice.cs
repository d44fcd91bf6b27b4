using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>A function as the kernel knows it from one enumeration to the next (struct pci_dev).</summary>
public sealed class PciDevice
{
    internal PciDevice(PciHardware hardware)
    {
        Hardware = hardware;
        ResetMethods = hardware.ResetMethods;
        Resources = [.. hardware.Resources];
    }

    public PciHardware Hardware { get; }
    public PciAddress Address => Hardware.Address;

    /// <summary>The driver's name, null for none.</summary>
    public string? Driver => Bound?.Name;

    /// <summary>driver_override, null where unset.</summary>
    public string? Override { get; internal set; }

    public string PowerControl { get; internal set; } = "on";
    public bool D3ColdAllowed { get; internal set; } = true;
    public IReadOnlyList<string> ResetMethods { get; internal set; }

    /// <summary>
    /// nvidia's usage count: opens of /dev/nvidiaN and kernel users (kernel-open/nvidia/nv.c:nv_open_device).
    /// </summary>
    public int UsageCount => FileUsers + KernelUsers + (ModesetUser ? 1 : 0);

    /// <summary>The call that has the device lock and did not come back, null where the lock is free.</summary>
    public string? LockHolder { get; internal set; }

    /// <summary>Its memory windows as the kernel laid them out: start, end, flags.</summary>
    public IReadOnlyList<(ulong Start, ulong End, ulong Flags)> Resources { get; private set; }

    internal void Resize(int bar, ulong size) => Resources =
        [.. Resources.Select((line, index) => index != bar ? line : size == 0 ? default : (line.Start, line.Start + size - 1, line.Flags))];

    internal PciDriver? Bound { get; set; }
    internal bool Removing { get; set; }
    internal bool WasBound { get; set; }
    internal int FileUsers { get; set; }
    internal int KernelUsers { get; set; }
    internal bool ModesetUser { get; set; }
    internal bool Persistent { get; set; }
    internal bool Draining { get; set; }
    internal bool NeverLets { get; set; }
    internal int I2cUsers { get; set; }
    internal int SoundUsers { get; set; }
    internal int VfioUsers { get; set; }
    internal int? Minor { get; set; }
    internal int? SoundCard { get; set; }
    internal int? I2cAdapter { get; set; }
    internal bool Lost { get; set; }
}
