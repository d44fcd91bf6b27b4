using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Proxmox;

/// <summary>What Proxmox's reservations say of functions: read once, and only if somebody asks.</summary>
sealed class Claims(ProxmoxNode node, IKernel kernel)
{
    readonly Lazy<ImmutableArray<Reservation>> _reserved = new(node.Reserved);

    /// <summary>Which other VM has a function, in words; null: none.</summary>
    /// <exception cref="NotProxmox">The file of reservations is too large to be one.</exception>
    public string? Of(PciAddress function, int vm)
    {
        foreach (var reservation in _reserved.Value.Where(r => r.Vm != vm && r.Id.Has(function)))
        {
            if (IsLive(reservation, kernel))
                return $"Proxmox keeps it for {Name(reservation.Vm, node)}, which {(reservation.Pid is { } pid ? $"runs as process {pid}" : "starts")}";
        }
        return null;
    }

    /// <summary>A process counts as long as the VM runs as that; a time until it has come.</summary>
    /// <remarks>PVE/QemuServer/PCI.pm:reserve_pci_usage.</remarks>
    public static bool IsLive(Reservation reservation, IKernel kernel) => reservation.Pid is { } pid
        ? RunningVm.Of(reservation.Vm, kernel)?.Pid == pid
        : reservation.Until is { } until && WallClock.Now(kernel) is { } now && until > now.ToUnixTimeSeconds();

    /// <summary><c>VM 102 (games)</c>, as a person knows it.</summary>
    public static string Name(int vm, ProxmoxNode node)
    {
        var id = vm.ToString(CultureInfo.InvariantCulture);
        try
        {
            return new Guests.Guest(Guests.VmManager.Proxmox, id) { Name = node.Config(vm)?.Name }.ToString();
        }
        catch (Exception e) when (e is NotProxmox or KernelRefused or KernelSilent)
        {
            return $"VM {id}";
        }
    }
}
