using System.Collections.Immutable;
using System.Globalization;

namespace GpuHandoff.Proxmox;

/// <summary>A function that Proxmox keeps for a VM: for a running one by its process, for one that starts until a time.</summary>
/// <param name="Pid">QEMU's process; null while the VM starts.</param>
/// <param name="Until">Seconds since 1970; null once it runs.</param>
public sealed record Reservation(HostId Id, int Vm, int? Pid, long? Until);

/// <summary>/run/qemu-server/pci-id-reservations, which Proxmox replaces as a whole: it can be read without its lock.</summary>
/// <remarks>qemu-server, PVE/QemuServer/PCI.pm: $parse_pci_reservation_unlocked. A line that it does not know it skips.</remarks>
public static class Reservations
{
    // 0000:05:00.0 101 pid:4711
    // 0000:06:00.0 102 time:1765000000
    public static ImmutableArray<Reservation> Parse(string text)
    {
        // A later line of the same ID wins.
        var found = new SortedDictionary<string, Reservation>(StringComparer.Ordinal);
        foreach (var line in text.Split('\n'))
        {
            if (line.Split(' ') is [var id, var vm, var claim] && HostId.TryParse(id, domainNeeded: false, out var parsed)
                && TryNumber(vm, out var number) && number <= int.MaxValue && claim.Split(':') is [var kind, var value] && TryNumber(value, out var claimed))
            {
                switch (kind)
                {
                    case "pid" when claimed <= int.MaxValue:
                        found[id] = new(parsed, (int)number, (int)claimed, null);
                        break;
                    case "time":
                        found[id] = new(parsed, (int)number, null, claimed);
                        break;
                }
            }
        }
        return [.. found.Values];
    }

    static bool TryNumber(string text, out long number) =>
        long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);
}
