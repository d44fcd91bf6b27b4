using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Checks;

static class SiblingIsInUse
{
    public static Check Check { get; } = new(
        "sibling-in-use", Target.Vfio,
        "Unbinding a sound card waits in the kernel until its last open node is closed (sound/core/init.c:snd_card_free), and what is plugged into a USB controller leaves the host with it.",
        q => Open(q).Concat(Hidden(q)).Concat(NotCounted(q)).Concat(Plugged(q)));

    static IEnumerable<Finding> Open(Question q) =>
        from function in q.Gpu.Functions.Concat(q.Gpu.Neighbours.Where(n => q.Policy.For(q.Gpu).Accepted.Contains(n.Address)))
        where function.Address != q.Gpu.Address && !function.IsOnVfio()
        let users = q.Machine.Users.Where(u => function.Nodes.Any(n => n.Node.IsSameDevice(u.Node)))
            .ToImmutableArray()
        where users is not []
        select new Finding("sibling-in-use", $"{function} is in use", [.. users.Select(u => u.ToString())], GpuIsInUse.HintFor(q, users));

    // As for nvidia: a count that no process explains is a user, and the unbind would wait for it.
    static IEnumerable<Finding> Hidden(Question q) =>
        from function in q.Gpu.Functions.Concat(q.Gpu.Neighbours.Where(n => q.Policy.For(q.Gpu).Accepted.Contains(n.Address)))
        where function.Address != q.Gpu.Address && !function.IsOnVfio() && function.Nodes is not []
        let use = q.Machine.Hidden.FirstOrDefault(h => h.Driver == function.Owner.Driver)
        where use is not null
        select new Finding("sibling-in-use", $"{function} may be in use, and no process shows it",
            [use.ToString(), .. q.Machine.Unseen.Select(pid => $"process {pid} could not be looked at: it may be the one")],
            "end the programs that play or record sound, or use the USB-C port, and try again");

    // A driver that is part of the kernel counts no users: there a process that cannot be looked at may be one.
    static IEnumerable<Finding> NotCounted(Question q) =>
        from function in q.Gpu.Functions.Concat(q.Gpu.Neighbours.Where(n => q.Policy.For(q.Gpu).Accepted.Contains(n.Address)))
        where q.Machine.Unseen is not [] && function.Address != q.Gpu.Address && !function.IsOnVfio() && function.Nodes is not []
        where function.Owner.Driver is { } driver && q.Machine.Module(Profile.ModuleOf(driver)) is not { State: ModuleState.Loaded, RefCount: not null }
        select new Finding("sibling-in-use", $"{function} may be in use: its driver counts no users, and processes could not be looked at",
            [.. q.Machine.Unseen.Select(pid => $"process {pid} could not be looked at: the kernel does not answer, or it has too much open")],
            "see what these processes are (ps -p PID) and end them, or try again");

    // Nobody can ask a mounted disk or the only keyboard whether it may go. A neighbour is accepted by name, with all that is on it.
    static IEnumerable<Finding> Plugged(Question q) =>
        from function in q.Gpu.Functions
        where !function.IsOnVfio() && function.Plugged is not [] && !q.Policy.For(q.Gpu).Accepted.Contains(function.Address)
        select new Finding(
            "sibling-in-use", $"{function} has USB devices", function.Plugged,
            $"unplug them, or let them go to the VM too: --accept-neighbour {function.Address}");
}
