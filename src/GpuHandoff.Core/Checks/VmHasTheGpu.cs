using System.Collections.Immutable;
using GpuHandoff.Goals;

namespace GpuHandoff.Checks;

static class VmHasTheGpu
{
    public static Check Check { get; } = new(
        "vm-has-the-gpu", Target.Host,
        "An unbind from vfio-pci waits in the kernel until the VM lets go (vfio_main.c:vfio_unregister_group_dev).",
        q =>
        {
            var lent = q.Gpu.Functions.Where(f => f.IsOnVfio()).ToImmutableArray();
            var nodes = lent.SelectMany(f => f.Nodes).ToImmutableArray();
            var users = q.Machine.Users.Where(u => nodes.Any(n => n.Node.IsSameDevice(u.Node)))
                .Select(u => u.ToString()).Distinct().ToImmutableArray();
            return users is not []
                ? [new("vm-has-the-gpu", $"a VM has {q.Gpu}", users, "shut the VM down first")]
                : lent is not [] && q.Machine.Vfio?.Hidden() is > 0 and var hidden
                ? [new(
                    "vm-has-the-gpu",
                    $"a VM may still have {q.Gpu}",
                    [$"vfio-pci has {hidden} open devices and no process shows one: a VM that is just ending, or a hidden descriptor"],
                    "wait until the VM has ended; the kernel resets its devices first, for a minute at most")]
                : [];
        });
}
