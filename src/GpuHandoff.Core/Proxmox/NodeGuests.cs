using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Proxmox;

/// <summary>A container's configuration as this node has it.</summary>
/// <param name="Devices">What it gives it; nobody knows what where the trouble says why.</param>
public sealed record ContainerFile(int Id, SysPath Path, string? Name, RunningContainer Devices, string? Trouble = null);

/// <summary>The guests of this node, with what their files give them of the host's cards.</summary>
public sealed record NodeGuests(string? Node, ImmutableArray<VmFile> Vms, ImmutableArray<ContainerFile> Containers)
{
    // More of one file says no more.
    const int MostLines = 3;

    /// <summary>Those that run: numbers are the cluster's, so a VM and a container never share one.</summary>
    public ImmutableArray<int> Running { get; init; } = [];

    /// <summary>The mappings that VMs of this node name.</summary>
    public ImmutableArray<PciMapping> Mappings { get; init; } = [];

    /// <summary>Why nobody knows what those offer; null: it is known.</summary>
    public string? MappingTrouble { get; init; }

    /// <summary>Whether a device gives a VM this card, or may: of several alternatives the start chooses one.</summary>
    public bool Gives(HostPci device, Gpu gpu) => !device.IsMediated && (device.Mapping is { } id
        ? Mappings.FirstOrDefault(m => m.Id == id) is { } mapping && Offers(mapping, gpu)
        : device.Host.Any(id => gpu.Functions.Any(f => id.Has(f.Address))));

    /// <summary>Whether a mapping has this card among what it offers on this node.</summary>
    public bool Offers(PciMapping mapping, Gpu gpu) => Node is not null && mapping.On(Node).Any(a => Names(a, gpu));

    public static bool Names(Alternative alternative, Gpu gpu) => alternative.Path.Any(id => gpu.Functions.Any(f => id.Has(f.Address)));

    /// <summary>Files, and lines of files, that Proxmox cannot read either: with their place, so that somebody can mend them.</summary>
    public IEnumerable<string> Troubles()
    {
        if (MappingTrouble is { } unread)
            yield return unread;
        foreach (var (path, trouble) in Vms.Select(v => (v.Path, v.Trouble)).Concat(Containers.Select(c => (c.Path, c.Trouble))).Where(f => f.Trouble is not null))
            yield return $"{path}: {trouble}";
        foreach (var (path, dropped) in Vms.Where(v => v.Config is not null).Select(v => (v.Path, v.Config!.Dropped))
            .Concat(Mappings.Select(m => (ProxmoxNode.MappingFile, m.Dropped))))
        {
            foreach (var line in dropped.Take(MostLines))
                yield return $"{path}, line {line.Number}: {line.Why}: Proxmox goes on without it";
            if (dropped.Length > MostLines)
                yield return $"{path}: {dropped.Length - MostLines} more such lines";
        }
    }

    public static NodeGuests Of(ProxmoxNode node, IKernel kernel)
    {
        var vms = node.Configs();
        var containers = node.Ids(ProxmoxNode.Containers).Select(id => Container(id, node)).ToImmutableArray();
        var (mappings, trouble) = MappingsOf(vms, node);
        return new(node.Name(), vms, containers)
        {
            Running =
            [
                .. vms.Select(v => v.Id).Where(id => RunningVm.Of(id, kernel) is not null),
                .. containers.Select(c => c.Id).Where(id => kernel.Exists(new($"/sys/fs/cgroup/lxc/{id}"))),
            ],
            Mappings = mappings,
            MappingTrouble = trouble,
        };
    }

    static (ImmutableArray<PciMapping> Mappings, string? Trouble) MappingsOf(ImmutableArray<VmFile> vms, ProxmoxNode node)
    {
        try
        {
            return (
            [
                .. vms.SelectMany(v => v.Config?.Devices ?? []).Select(d => d.Mapping).OfType<string>().Distinct()
                    .Select(node.Mapping).OfType<PciMapping>(),
            ], null);
        }
        catch (NotProxmox trouble)
        {
            return ([], trouble.Message);
        }
    }

    static ContainerFile Container(int id, ProxmoxNode node)
    {
        var path = ProxmoxNode.Containers / $"{id}.conf";
        var container = new Container(ContainerKind.Lxc, id.ToString(CultureInfo.InvariantCulture));
        try
        {
            var text = node.Text(path) ?? "";
            return new(id, path, NameIn(text), LxcConfig.Parse(container, text));
        }
        catch (Exception e) when (e is NotProxmox or KernelRefused)
        {
            return new(id, path, null, new(container, [], []) { IsKnown = false }, e is KernelRefused refused ? refused.Reason : e.Message);
        }
    }

    // hostname: media
    static string? NameIn(string text)
    {
        foreach (var line in text.EnumerateLines())
        {
            if (line.StartsWith("["))
                break;
            if (line.StartsWith("hostname:"))
                return line["hostname:".Length..].Trim().ToString();
        }
        return null;
    }
}
