using System.Collections.Immutable;
using GpuHandoff.Machines;

namespace GpuHandoff.Goals;

/// <summary>What becomes of somebody who uses a card that a VM is to get.</summary>
public enum Treatment
{
    /// <summary>The hand-over is refused, and names him.</summary>
    Refuse,

    /// <summary>Stopped, and left so.</summary>
    Stop,

    /// <summary>Stopped, and started again when the card is back.</summary>
    Restart,
}

/// <summary>
/// Who is stopped for a VM. Unasked only what serves the card itself: NVIDIA's own daemons have no work of their own to
/// lose, a game or a training job does.
/// </summary>
public sealed record UsersPolicy
{
    public static UsersPolicy Default { get; } = new();

    /// <summary>NVIDIA's own daemons: persistenced, MPS, powerd, the fabric manager, DCGM and its exporter.</summary>
    public Treatment Nvidia { get; init; } = Treatment.Restart;

    /// <summary>The display manager, and with it every graphical session on the card.</summary>
    public Treatment DisplayManager { get; init; } = Treatment.Refuse;

    /// <summary>Any other unit of systemd.</summary>
    public Treatment Units { get; init; } = Treatment.Refuse;

    /// <summary>Containers of Proxmox, Docker and Podman.</summary>
    public Treatment Containers { get; init; } = Treatment.Refuse;

    /// <summary>Processes that belong to none of these: <see cref="Treatment.Refuse"/> or <see cref="Treatment.Stop"/>.</summary>
    public Treatment Processes { get; init; } = Treatment.Refuse;

    /// <summary>Units by name (<c>ollama.service</c>) that are treated otherwise than the rest.</summary>
    public ImmutableSortedDictionary<string, Treatment> Unit { get; init; } = ImmutableSortedDictionary<string, Treatment>.Empty;

    /// <summary>Containers by name (<c>107</c> of Proxmox, <c>docker:0123456789ab</c>, <c>podman:…</c>) that are treated otherwise.</summary>
    public ImmutableSortedDictionary<string, Treatment> Container { get; init; } = ImmutableSortedDictionary<string, Treatment>.Empty;

    /// <summary>
    /// Proxmox's containers that use a card by their admin's word (LXC_RESTART_IDS), whether it shows or not: those that run
    /// are stopped, and started again.
    /// </summary>
    public ImmutableArray<string> Restarted { get; init; } = [];

    /// <summary>Whether one of Proxmox's containers is meant by its own number, and not by what is said of all.</summary>
    public bool Names(Container container) => container.Kind == ContainerKind.Lxc && (Restarted.Contains(container.Id) || Container.ContainsKey(container.Id));

    public Treatment OfUnit(string unit, Treatment rest) => Unit.GetValueOrDefault(unit, rest);

    /// <summary>Docker's and Podman's numbers are known by their first digits: the policy may have more of them, or fewer.</summary>
    public Treatment OfContainer(Container container)
    {
        if (container.Kind == ContainerKind.Lxc)
            return Restarted.Contains(container.Id) ? Treatment.Restart : Container.GetValueOrDefault(container.Id, Containers);
        var before = container.Kind == ContainerKind.Docker ? "docker:" : "podman:";
        foreach (var (name, treatment) in Container)
        {
            if (name.StartsWith(before, StringComparison.Ordinal) && name[before.Length..] is { Length: > 0 } id
                && (id.StartsWith(container.Id, StringComparison.Ordinal) || container.Id.StartsWith(id, StringComparison.Ordinal)))
            {
                return treatment;
            }
        }
        return Containers;
    }

    /// <summary>Nobody is stopped, but NVIDIA's own daemons as they were to be.</summary>
    public static UsersPolicy Nobody(Treatment nvidia) => new() { Nvidia = nvidia };

    /// <summary>The same, with no container stopped, whoever named it.</summary>
    public UsersPolicy SparingContainers() => this with
    {
        Containers = Treatment.Refuse,
        Container = ImmutableSortedDictionary<string, Treatment>.Empty,
        Restarted = [],
    };

    /// <summary>All of them stopped, and started again where that can be: <c>--stop-users</c>. A display manager keeps its own word.</summary>
    public UsersPolicy Everybody() => this with
    {
        Nvidia = Treatment.Restart,
        Units = Treatment.Restart,
        Containers = Treatment.Restart,
        Processes = Treatment.Stop,
    };
}
