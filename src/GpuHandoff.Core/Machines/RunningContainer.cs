using System.Collections.Immutable;

namespace GpuHandoff.Machines;

/// <summary>A device that a container may open, by number. <c>c 195:* rwm</c>: every minor.</summary>
public sealed record DeviceRule(uint Major, uint? Minor)
{
    public bool Allows(DeviceNode node) => node.Major == Major && (Minor is null || Minor == node.Minor);
}

/// <summary>A container of Proxmox that runs, with the devices that its config gives it.</summary>
/// <param name="Nodes">The host's paths: <c>/dev/nvidia0</c>, <c>/dev/dri</c>.</param>
public sealed record RunningContainer(Container Container, ImmutableArray<string> Nodes, ImmutableArray<DeviceRule> Rules)
{
    /// <summary>False: it runs, and its config could not be read, so that nobody knows what it was given.</summary>
    public bool IsKnown { get; init; } = true;

    /// <summary>
    /// Whether it was given a card. Nodes that belong to every card of NVIDIA's (nvidiactl, nvidia-uvm) count where no
    /// card's own is named: with the whole stack gone they are stale as well, uvm's number is another one after each load.
    /// </summary>
    public bool Has(Gpu gpu, Machine machine, bool wholeStack)
    {
        // Its own nodes first: who names one card's does not mean another's.
        var own = NodesOf(gpu, machine);
        if (own.Any(n => Names(n.Path)) || Names(gpu.Address))
            return true;
        var exact = Rules.Where(r => r.Minor is not null && !IsShared(r, machine)).ToList();
        if (exact.Exists(r => own.Any(n => r.Allows(n.Node))))
            return true;
        if (HasAllDrm() && own.Any(n => n.Node.Major == Drm))
            return true;
        if (gpu.Display().Owner.Driver != "nvidia")
            return false;
        var shared = Nodes.Any(IsSharedNode) || Rules.Any(r => r.Major != Drm && IsShared(r, machine));
        var another = exact.Exists(r => r.Major == Nvidia) || Nodes.Any(IsOneCards) || machine.NvidiaGpus().Any(g => NamesDrmOf(g, exact));
        return (shared && (wholeStack || !another)) || (wholeStack && Nodes.Any(IsNvidias));
    }

    /// <summary>
    /// DRM's folder is shared by the cards of all makers: who has it and names one card's node (a rule for the processor's own
    /// graphics next to the bind of /dev/dri) means that card, whatever becomes of NVIDIA's modules.
    /// </summary>
    bool HasAllDrm() => (Nodes.Contains("/dev/dri") || Rules.Contains(new(Drm, null)))
        && !Rules.Any(r => r is { Major: Drm, Minor: not null })
        && !Nodes.Any(n => n.StartsWith("/dev/dri/", StringComparison.Ordinal));

    bool NamesDrmOf(Gpu gpu, List<DeviceRule> exact) => Names(gpu.Address)
        || gpu.Functions.SelectMany(f => f.Nodes).Any(n => n.Node.Major == Drm && (Names(n.Path) || exact.Exists(r => r.Allows(n.Node))));

    bool Names(string path) => Nodes.Contains(path);

    // /dev/dri/by-path/pci-0000:01:00.0-card
    bool Names(PciAddress gpu) => Nodes.Any(n => n.Contains($"pci-{gpu}-", StringComparison.Ordinal));

    static ImmutableArray<NamedNode> NodesOf(Gpu gpu, Machine machine) =>
        [.. machine.Nodes.Where(n => n.Path == $"/dev/nvidia{gpu.Minor}"), .. gpu.Functions.SelectMany(f => f.Nodes)];

    static bool IsNvidias(string path) => path.StartsWith("/dev/nvidia", StringComparison.Ordinal);

    static bool IsOneCards(string path) => IsNvidias(path) && path.Length > "/dev/nvidia".Length && char.IsAsciiDigit(path["/dev/nvidia".Length]);

    static bool IsSharedNode(string path) => IsNvidias(path) && !IsOneCards(path);

    // 195:* is every card; 195:255 is nvidiactl, 195:254 nvidia-modeset (nvidia/nv-chardev-numbers.h). uvm's number is today's.
    static bool IsShared(DeviceRule rule, Machine machine) => rule switch
    {
        { Major: Nvidia or Drm, Minor: null } or { Major: Nvidia, Minor: 254 or 255 } => true,
        _ => machine.Nodes.Any(n => n.Node.Major != Nvidia && rule.Allows(n.Node)),
    };

    const uint Nvidia = 195;
    const uint Drm = 226;
}
