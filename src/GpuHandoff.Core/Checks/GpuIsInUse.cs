using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Plans;

namespace GpuHandoff.Checks;

static class GpuIsInUse
{
    public static Check Check { get; } = new(
        "gpu-in-use", Target.Vfio,
        "An unbind of a card in use waits inside the kernel for ever, deaf to signals (nvidia/nv-pci.c:nv_pci_remove).",
        q => q.Gpu.Display().Owner.Driver switch
        {
            "nvidia" when q.By == FreeBy.Unload => StackInUse(q),
            "nvidia" => CardInUse(q),
            not null and not Owner.Vfio => NodesInUse(q, "end what uses the card's DRM nodes"),
            _ => [],
        });

    static IEnumerable<Finding> StackInUse(Question q)
    {
        var users = UsersOf(q, q.Machine.Nodes.Concat(q.Gpu.Display().Nodes));
        // A count without a process is a kernel user, a descriptor in flight, or a module's own hold on another.
        var counted = NvidiaStack.Loaded(q.Machine).Where(m => m.Users() > TextConsole.HoldsOf(m.Name, q.Machine, q.Goal.Gpus))
            .Where(m => m.Name is not ("nvidia" or "nvidia_modeset") || !NvidiaStack.DrmHoldsModules(q.Machine))
            .Select(m => $"module {m.Name} has {m.Users()} users that are no modules").ToImmutableArray();
        return users is [] && counted is [] ? [] : [InUse(q, [.. Lines(users), .. counted, .. NotSeen(q, users)], users is [] ? Hidden : HintFor(q, users))];
    }

    const string Hidden =
        "no process shows it open, so there is nobody to stop: a kernel client or a hidden descriptor has it; try again when it has ended";

    static IEnumerable<Finding> CardInUse(Question q)
    {
        var users = UsersOf(q, q.Machine.Nodes.Where(n => n.Path == $"/dev/nvidia{q.Gpu.Minor}").Concat(q.Gpu.Display().Nodes));
        if (users is not [])
            return [InUse(q, Lines(users), HintFor(q, users))];
        // nvidia_drm with modeset=1 is a kernel user of its own: it goes first, or the counts show that it is the only one.
        if (q.Gpu.Display().Interrupts == 0 || NvidiaStack.DrmHoldsModules(q.Machine))
            return [];
        // Through these a card is used as well, and they do not say which one (nv.c:nvidia_dev_get_uuid, NVKMS clients).
        var maybe = UsersOf(q, q.Machine.Nodes.Where(n => n.Path is "/dev/nvidia-uvm" or "/dev/nvidia-modeset" or "/dev/nvidiactl"));
        return
        [
            InUse(
                q,
                [
                    $"nvidia has {q.Gpu.Display().Interrupts} interrupts for {q.Gpu.Address}, and no process shows a node of it open",
                    .. Lines(maybe).Select(line => $"maybe {line}"),
                    .. NotSeen(q, users),
                ],
                q.Gpu.Persistence == true
                    ? $"it is in persistence mode: switch it off (nvidia-smi -pm 0), or let the plan do it with --stop-users, or with this in {PolicyFile}: users: {{nvidia: restart}}"
                    : "switch persistence mode off (nvidia-smi -pm 0); else a kernel client or a hidden descriptor has it, and only unloading can tell"),
        ];
    }

    static IEnumerable<Finding> NodesInUse(Question q, string hint)
    {
        var users = UsersOf(q, q.Gpu.Display().Nodes);
        if (users is not [])
            return [InUse(q, Lines(users), HintFor(q, users, hint))];
        return q.Machine.Hidden.FirstOrDefault(h => h.Driver == q.Gpu.Display().Owner.Driver) is { } use
            ? [InUse(q, [use.ToString(), .. NotSeen(q, users)], "end the programs that draw or compute on it and try again")]
            : [];
    }

    static Finding InUse(Question q, ImmutableArray<string> evidence, string hint) =>
        new("gpu-in-use", $"{q.Gpu} is in use", evidence, hint);

    /// <summary>
    /// The way out: by hand, or by the plan, with the words for it. Whom no word lets the plan stop is left to somebody who may.
    /// </summary>
    public static string HintFor(Question q, ImmutableArray<GpuUser> users, string byHand = "stop them")
    {
        if (users.Any(u => u.KeepsASession() && !Treating.IsOfTheDisplay(u, q.Machine)))
            return EndTheSession;
        var never = users.Select(u => (User: u, Why: Treating.WhyNever(u, q.Machine))).Where(u => u.Why is not null)
            .Select(u => $"{u.User.Pid} {u.User.Command}: {u.Why}").Distinct().ToList();
        if (never.Count > 0)
            return $"--stop-users stops no VM, no login session and not itself: {string.Join("; ", never)}";
        if (users is [])
            return $"{byHand}, or let the plan do it with --stop-users";
        if (users.Any(u => Treating.IsOfTheDisplay(u, q.Machine)))
            byHand = "end the graphical session (systemctl stop display-manager.service)";
        if (users.Any(u => u.Of.Unit == NvidiaUnits.FabricManager))
            byHand = $"{byHand} ({NvidiaUnits.FabricManager} when no GPU computes: its end aborts the CUDA work of all GPUs)";
        var words = users.Select(u => Treating.Words(u, q.Machine)).Distinct().ToList();
        var ways = words.TrueForAll(w => w is "display-manager: restart" or Treating.FabricManagersWord) ? "" : " with --stop-users, or";
        return $"{byHand}, or let the plan do it{ways} with this in {PolicyFile}: users: {{{string.Join(", ", words)}}}";
    }

    const string PolicyFile = "/etc/gpu-handoff.yaml";

    /// <summary>logind and PID 1 hold a card for others and let go with them: stopping these two would end the machine's work.</summary>
    public const string EndTheSession =
        "end the graphical session (stop the display manager, or loginctl terminate-session): systemd-logind keeps the card open for it";

    static ImmutableArray<GpuUser> UsersOf(Question q, IEnumerable<NamedNode> nodes)
    {
        var wanted = nodes.ToList();
        return [.. q.Machine.Users.Where(u => wanted.Exists(n => n.Node.IsSameDevice(u.Node)))];
    }

    static ImmutableArray<string> Lines(ImmutableArray<GpuUser> users) => [.. users.Select(u => u.ToString()).Distinct()];

    static IEnumerable<string> NotSeen(Question q, ImmutableArray<GpuUser> users) => users is []
        ? q.Machine.Unseen.Select(pid => $"process {pid} cannot be looked at, the kernel does not answer: it may be the one")
        : [];
}
