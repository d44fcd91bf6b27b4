using System.Collections.Immutable;
using GpuHandoff.Machines;

namespace GpuHandoff.Goals;

/// <summary>How a card is taken from NVIDIA's driver.</summary>
public enum FreeBy
{
    /// <summary>Unload where no other GPU needs the driver, unbind where one does.</summary>
    Auto,

    /// <summary>Take the whole stack of modules down: a busy one refuses at once, harmlessly.</summary>
    Unload,

    /// <summary>Unbind this card alone: the modules and the other cards stay.</summary>
    Unbind,
}

/// <summary>How long one call may take before it counts as silent.</summary>
/// <param name="Write">A sysfs write: an override, an unbind, a bind.</param>
/// <param name="Module">Loading or unloading one module; loading runs the probe of every card.</param>
/// <param name="Total">
/// Waiting for other runs and for a VM, and the steps, until the GPU is where it shall be. What is left then has
/// <see cref="Restart"/>. Undoing is not cut short: each call has its own limit.
/// </param>
public sealed record Limits(TimeSpan Write, TimeSpan Module, TimeSpan Total)
{
    /// <summary>A write may wait for a VM that is just letting go: the kernel polls a reset for 60 s (pci.c:pci_dev_wait).</summary>
    public static Limits Default { get; } = new(TimeSpan.FromSeconds(75), TimeSpan.FromSeconds(75), TimeSpan.FromSeconds(300));

    /// <summary>
    /// A reset, a removal or a rescan: longer than the kernel itself polls for a card that does not wake up, which is 60 s
    /// (pci.c:pci_dev_wait, PCIE_RESET_READY_POLL_MS).
    /// </summary>
    public TimeSpan Reset { get; init; } = TimeSpan.FromSeconds(90);

    /// <summary>A program that only asks or sets something (nvidia-smi, systemctl show).</summary>
    public TimeSpan Program { get; init; } = TimeSpan.FromSeconds(20);

    /// <summary>A unit or a container to stop or start: systemd itself kills after 90 s where nothing else is said (TimeoutStopSec).</summary>
    public TimeSpan Users { get; init; } = TimeSpan.FromSeconds(100);

    /// <summary>Starting again what was stopped, all together, once the GPU is where it shall be. Looked at between two of them.</summary>
    public TimeSpan Restart { get; init; } = TimeSpan.FromSeconds(300);
}

/// <summary>Whether a VM that is off, and that Proxmox starts only to back it up, gets its GPU for that.</summary>
public enum AtBackup
{
    /// <summary>If nobody uses it, and the console is not on it: nobody steps aside for a backup.</summary>
    Free,

    /// <summary>As for every other start.</summary>
    Always,

    /// <summary>Never: the backup fails, and the GPU stays where it is.</summary>
    Refuse,
}

/// <summary>What becomes of a VM's GPU while the VM is rebooted through Proxmox.</summary>
public enum AtReboot
{
    /// <summary>It stays on vfio-pci for the VM.</summary>
    Keep,

    /// <summary>It goes back to the host, and to the VM again.</summary>
    Return,
}

/// <summary>How the wanted is to be reached.</summary>
public sealed record Policy
{
    public static Policy Default { get; } = new();

    public FreeBy By { get; init; } = FreeBy.Auto;

    /// <summary>Strangers in the GPU's IOMMU group that may go to the VM with it.</summary>
    public ImmutableArray<PciAddress> Accepted { get; init; } = [];

    /// <summary>Take to the host's driver what was on vfio-pci before we came.</summary>
    public bool Claim { get; init; }

    /// <summary>How long a return waits for a VM that still has the card. Nothing is begun before it has let go.</summary>
    public TimeSpan Patience { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>The resets that may mend a card whose driver does not take it back.</summary>
    public ImmutableArray<Rung> Resets { get; init; } = [Rung.Function, Rung.Bus];

    /// <summary>Reset the card before vfio-pci gets it. vfio-pci does so itself when the VM opens it, so this is rarely of use.</summary>
    public bool ResetFirst { get; init; }

    /// <summary>The size that BAR 1 shall have in the VM, in bytes; null: as it is.</summary>
    public ulong? Bar1 { get; init; }

    /// <summary>What becomes of those who use the card.</summary>
    public UsersPolicy Users { get; init; } = UsersPolicy.Default;

    /// <summary>Hand the card over even where the host's text console ends with that, until the next boot.</summary>
    public bool LoseConsole { get; init; }

    /// <summary>Refuse rather than take the host's text console off the card, even where it would come back with it.</summary>
    public bool SpareConsole { get; init; }

    public AtBackup AtBackup { get; init; } = AtBackup.Free;

    /// <summary>Whether containers may be stopped for a backup where it is <see cref="AtBackup.Always"/>.</summary>
    public bool BackupContainers { get; init; }

    public AtReboot AtReboot { get; init; } = AtReboot.Keep;

    /// <summary>Where a VM's threads shall run.</summary>
    public Pinning Pin { get; init; } = Pinning.None;

    /// <summary>Cards that are treated otherwise than the rest: by address, a whole policy each.</summary>
    public ImmutableSortedDictionary<PciAddress, Policy> Own { get; init; } = ImmutableSortedDictionary<PciAddress, Policy>.Empty;

    /// <summary>What holds for one card. Limits, patience and the way in which the driver lets go are the whole run's.</summary>
    public Policy For(Gpu gpu) => Own.GetValueOrDefault(gpu.Address, this);

    public Limits Limits { get; init; } = Limits.Default;
}
