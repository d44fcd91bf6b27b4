using System.Collections.Immutable;
using GpuHandoff.Goals;

namespace GpuHandoff.Checks;

static class SiblingIsInUse
{
    public static Check Check { get; } = new(
        "sibling-in-use", Target.Vfio,
        "Unbinding a sound card waits in the kernel until its last open node is closed (sound/core/init.c:snd_card_free).",
        q => from function in q.Gpu.Functions.Concat(q.Gpu.Neighbours.Where(n => q.Policy.Accepted.Contains(n.Address)))
             where function.Address != q.Gpu.Address && !function.IsOnVfio()
             let users = q.Machine.Users.Where(u => function.Nodes.Any(n => n.Node.IsSameDevice(u.Node)))
                 .Select(u => u.ToString()).ToImmutableArray()
             where users is not []
             select new Finding("sibling-in-use", $"{function} is in use", users, q.Policy.StopUsers
                 ? "--stop-users stops no VM, no login session and not itself: end them and try again"
                 : "stop them, or let the plan do it with --stop-users"));
}
