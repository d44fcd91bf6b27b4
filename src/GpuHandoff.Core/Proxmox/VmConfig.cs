using System.Buffers;
using System.Collections.Immutable;
using System.Globalization;

namespace GpuHandoff.Proxmox;

/// <summary>A line that Proxmox warns about and goes on without.</summary>
public sealed record DroppedLine(int Number, string Text, string Why);

/// <summary>
/// What a hand-over wants to know of a VM's configuration, /etc/pve/qemu-server/VMID.conf: of its main section only, for
/// the others are snapshots and changes to come.
/// </summary>
/// <remarks>qemu-server, PVE/QemuServer.pm:parse_vm_config.</remarks>
public sealed record VmConfig
{
    static readonly SearchValues<char> _inKeys = SearchValues.Create("abcdefghijklmnopqrstuvwxyz_-");

    /// <summary>Its devices, by number. A line that Proxmox drops is not among them.</summary>
    public ImmutableArray<HostPci> Devices { get; init; } = [];

    /// <summary>A template is never started, but for a backup, and then without its devices.</summary>
    public bool IsTemplate { get; init; }

    /// <summary><c>backup</c>, <c>migrate</c>, …; null: not locked.</summary>
    public string? Lock { get; init; }

    public string? Name { get; init; }

    /// <summary>The volume of its hookscript: <c>local:snippets/gpu-handoff</c>.</summary>
    public string? Hookscript { get; init; }

    /// <summary>Arguments for QEMU; a <c>vfio-pci</c> in here is a device that Proxmox neither binds nor reserves.</summary>
    public string? Arguments { get; init; }

    public ImmutableArray<DroppedLine> Dropped { get; init; } = [];

    // #Windows with the RTX 4090
    // hookscript: local:snippets/gpu-handoff
    // hostpci0: 0000:05:00,pcie=1
    // lock: backup
    // name: windows
    // [PENDING]
    // hostpci0: 0000:06:00,pcie=1
    // [before-update]
    // hostpci0: 0000:05:00
    public static VmConfig Parse(string text)
    {
        var (config, devices, dropped) = (new VmConfig(), new SortedDictionary<int, HostPci>(), ImmutableArray.CreateBuilder<DroppedLine>());
        var number = 0;
        foreach (var line in text.EnumerateLines())
        {
            number++;
            if (line.IsWhiteSpace() || line[0] == '#')
                continue;
            // Every other section stands behind the main one.
            if (IsHeader(line.TrimEnd()))
                break;
            var colon = line.IndexOf(':');
            var key = colon < 0 ? "" : line[..colon].ToString();
            var value = colon < 0 ? "" : line[(colon + 1)..].Trim().ToString();
            if (!IsKey(key) || value is "")
            {
                dropped.Add(new(number, line.ToString(), "it is no \"key: value\""));
                continue;
            }
            try
            {
                config = key switch
                {
                    "template" => config with { IsTemplate = PropertyText.Flag(key, value) },
                    "lock" => config with { Lock = value },
                    "name" => config with { Name = value },
                    "hookscript" => config with { Hookscript = value },
                    "args" => config with { Arguments = value },
                    _ => config,
                };
                // A later line of the same key wins, unless it is dropped.
                if (NumberOf(key) is { } index)
                    devices[index] = HostPci.Parse(index, value);
            }
            catch (NotProxmox trouble)
            {
                dropped.Add(new(number, line.ToString(), trouble.Message));
            }
        }
        return config with { Devices = [.. devices.Values], Dropped = dropped.ToImmutable() };
    }

    internal static bool IsHeader(ReadOnlySpan<char> line) => line is ['[', .. var name, ']'] && !name.Contains(']');

    static bool IsKey(string key)
    {
        var name = key.AsSpan().TrimEnd("0123456789");
        return name is [>= 'a' and <= 'z', ..] && !name.ContainsAnyExcept(_inKeys);
    }

    // hostpci00 is no key of Proxmox's.
    static int? NumberOf(string key) => key.StartsWith("hostpci", StringComparison.Ordinal)
        && int.TryParse(key.AsSpan("hostpci".Length), NumberStyles.None, CultureInfo.InvariantCulture, out var index)
        && index < HostPci.Most && key == $"hostpci{index.ToString(CultureInfo.InvariantCulture)}"
            ? index
            : null;
}
