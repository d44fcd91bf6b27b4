using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Machines;

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
            not null and not Owner.Vfio => NodesInUse(q, "end what uses the card's DRM nodes first"),
            _ => [],
        });

    static IEnumerable<Finding> StackInUse(Question q)
    {
        var users = UsersOf(q, n => n.Path.StartsWith("/dev/nvidia", StringComparison.Ordinal)).Concat(
            UsersOf(q, n => n.Path.StartsWith("/dev/dri", StringComparison.Ordinal))).ToImmutableArray();
        // A count without a process is a kernel user, a descriptor in flight, or a module's own hold on another.
        var counted = NvidiaStack.Loaded(q.Machine).Where(m => m.Users() > 0)
            .Where(m => m.Name is not ("nvidia" or "nvidia_modeset") || !NvidiaStack.DrmHoldsModules(q.Machine))
            .Select(m => $"module {m.Name} has {m.Users()} users that are no modules").ToImmutableArray();
        return users is [] && counted is [] ? [] : [InUse(q, [.. users, .. counted])];
    }

    static IEnumerable<Finding> CardInUse(Question q)
    {
        var users = UsersOf(q, n => n.Path == $"/dev/nvidia{q.Gpu.Minor}" || q.Gpu.Functions.Any(f => f.Nodes.Contains(n)))
            .ToImmutableArray();
        if (users is not [])
            return [InUse(q, users)];
        // nvidia_drm with modeset=1 is a kernel user of its own: it goes first, or the counts show that it is the only one.
        return q.Gpu.Display().Interrupts == 0 || NvidiaStack.DrmHoldsModules(q.Machine)
            ? []
            : [InUse(q,
                [$"nvidia has {q.Gpu.Display().Interrupts} interrupts for {q.Gpu.Address}, and no process shows a node of it open"],
                q.Gpu.Persistence == true
                    ? "it is in persistence mode: switch it off (nvidia-smi -pm 0), or let the plan do it with --stop-users"
                    : "switch persistence mode off (nvidia-smi -pm 0); else a kernel client or a hidden descriptor has it, and only unloading can tell")];
    }

    static IEnumerable<Finding> NodesInUse(Question q, string hint)
    {
        var users = UsersOf(q, q.Gpu.Display().Nodes.Contains).ToImmutableArray();
        return users is []
            ? []
            : [new("gpu-in-use", $"{q.Gpu} is in use", users, hint)];
    }

    static Finding InUse(Question q, ImmutableArray<string> evidence, string? hint = null) => new(
        "gpu-in-use",
        $"{q.Gpu} is in use",
        evidence,
        hint ?? (q.Policy.StopUsers
            ? "--stop-users stops no VM, no login session and not itself, and a count without a process tells nobody to stop: end them and try again"
            : "stop them (nvidia-persistenced: systemctl stop nvidia-persistenced), or let the plan do it with --stop-users"));

    static IEnumerable<string> UsersOf(Question q, Func<NamedNode, bool> which)
    {
        var nodes = q.Machine.Nodes.Concat(q.Gpu.Functions.SelectMany(f => f.Nodes)).Where(which).ToImmutableArray();
        return q.Machine.Users.Where(u => nodes.Any(n => n.Node.IsSameDevice(u.Node))).Select(u => u.ToString()).Distinct();
    }
}
