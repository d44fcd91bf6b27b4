using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Machines;

namespace GpuHandoff.Proxmox;

/// <summary>Functions that a mapping offers on one node, all of them together.</summary>
/// <param name="Id">The vendor and the device that are expected at the first path.</param>
/// <param name="Group">The IOMMU group that is expected for it.</param>
/// <param name="Subsystem">The subsystem's IDs that are expected for it.</param>
public sealed record Alternative(string Node, ImmutableArray<HostId> Path, PciId Id, int? Group, PciId? Subsystem);

/// <summary>A resource mapping of the cluster: a name for PCI devices that each node has at another place.</summary>
public sealed record PciMapping(string Id)
{
    /// <summary>In the order of the file, which is the order of choice.</summary>
    public ImmutableArray<Alternative> Alternatives { get; init; } = [];

    public bool IsMediated { get; init; }

    public ImmutableArray<DroppedLine> Dropped { get; init; } = [];

    public IEnumerable<Alternative> On(string node) => Alternatives.Where(a => a.Node == node);
}

/// <summary>/etc/pve/mapping/pci.cfg.</summary>
/// <remarks>pve-guest-common, PVE/Mapping/PCI.pm; pve-common, PVE/SectionConfig.pm:parse_config.</remarks>
public static class PciMappings
{
    // gpu-pool
    // 	description two cards
    // 	map id=10de:2684,iommugroup=18,node=pve1,path=0000:05:00,subsystem-id=1458:40bf
    // 	map id=10de:2684,iommugroup=19,node=pve1,path=0000:06:00.0;0000:06:00.1
    // 	mdev 0
    /// <summary>The mapping of a name; null: there is none.</summary>
    public static PciMapping? Find(string text, string id)
    {
        PciMapping? found = null;
        PciMapping? current = null;
        var (number, skips) = (0, false);
        foreach (var line in text.EnumerateLines())
        {
            number++;
            if (line.IsWhiteSpace())
            {
                current = null;
                skips = false;
                continue;
            }
            if (line[0] == '#' || skips)
                continue;
            if (current is null)
            {
                var name = line.TrimEnd().ToString();
                current = new(name);
                // A name that is none hides its section, up to the next blank line.
                skips = !HostPci.IsId(name);
                // Of two sections with a name the last one counts.
                if (!skips && name == id)
                    found = current;
                continue;
            }
            if (current.Id != id)
                continue;
            found = current = With(current, line.Trim(), number);
        }
        return found;
    }

    static PciMapping With(PciMapping mapping, ReadOnlySpan<char> line, int number)
    {
        var space = line.IndexOfAny(' ', '\t');
        var value = space < 0 ? "" : line[(space + 1)..].Trim().ToString();
        try
        {
            return (space < 0 ? line : line[..space]) switch
            {
                "map" => mapping with { Alternatives = mapping.Alternatives.Add(Entry(value)) },
                "mdev" => mapping with { IsMediated = PropertyText.Flag("mdev", value) },
                _ => mapping,
            };
        }
        catch (NotProxmox trouble)
        {
            return mapping with { Dropped = mapping.Dropped.Add(new(number, line.ToString(), trouble.Message)) };
        }
    }

    static Alternative Entry(string text)
    {
        var properties = PropertyText.Parse(text, unnamed: null);
        foreach (var key in properties.Keys.Where(k => k is not ("node" or "path" or "id" or "iommugroup" or "subsystem-id" or "description")))
            throw new NotProxmox($"\"{key}\" is no property of a map");
        return new(
            Needed("node"),
            HostPci.Ids(Needed("path"), domainNeeded: true),
            Ids("id", Needed("id")),
            properties.TryGetValue("iommugroup", out var group) ? Number(group) : null,
            properties.TryGetValue("subsystem-id", out var subsystem) ? Ids("subsystem-id", subsystem) : null);

        string Needed(string key) => properties.GetValueOrDefault(key) ?? throw new NotProxmox($"{key} is missing");
    }

    static int Number(string text) => int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number)
        ? number
        : throw new NotProxmox($"iommugroup={text} is no number");

    static PciId Ids(string key, string text) => text.Split(':') is [{ Length: 4 } vendor, { Length: 4 } device]
        && int.TryParse(vendor, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var v)
        && int.TryParse(device, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var d)
            ? new(v, d)
            : throw new NotProxmox($"{key}={text} is no vendor:device");
}
