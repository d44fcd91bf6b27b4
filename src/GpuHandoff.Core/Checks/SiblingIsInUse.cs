using System.Collections.Immutable;
using GpuHandoff.Goals;

namespace GpuHandoff.Checks;

static class SiblingIsInUse
{
    public static Check Check { get; } = new(
        "sibling-in-use", Target.Vfio,
        "Unbinding a sound card waits in the kernel until its last open node is closed (sound/core/init.c:snd_card_free), and what is plugged into a USB controller leaves the host with it.",
        q => Open(q).Concat(Plugged(q)));

    static IEnumerable<Finding> Open(Question q) =>
        from function in q.Gpu.Functions.Concat(q.Gpu.Neighbours.Where(n => q.Policy.For(q.Gpu).Accepted.Contains(n.Address)))
        where function.Address != q.Gpu.Address && !function.IsOnVfio()
        let users = q.Machine.Users.Where(u => function.Nodes.Any(n => n.Node.IsSameDevice(u.Node)))
            .Select(u => u.ToString()).ToImmutableArray()
        where users is not []
        select new Finding("sibling-in-use", $"{function} is in use", users, GpuIsInUse.HintFor(q, [], "stop them"));

    // Nobody can ask a mounted disk or the only keyboard whether it may go. A neighbour is accepted by name, with all that is on it.
    static IEnumerable<Finding> Plugged(Question q) =>
        from function in q.Gpu.Functions
        where !function.IsOnVfio() && function.Plugged is not [] && !q.Policy.For(q.Gpu).Accepted.Contains(function.Address)
        select new Finding(
            "sibling-in-use", $"{function} has USB devices", function.Plugged,
            $"unplug them, or let them go to the VM too: --accept-neighbour {function.Address}");
}
