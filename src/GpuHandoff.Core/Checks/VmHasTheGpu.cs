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
            var nodes = q.Gpu.Functions.Where(f => f.IsOnVfio()).SelectMany(f => f.Nodes).ToImmutableArray();
            var users = q.Machine.Users.Where(u => nodes.Any(n => n.Node.IsSameDevice(u.Node)))
                .Select(u => u.ToString()).Distinct().ToImmutableArray();
            return users is []
                ? []
                : [new("vm-has-the-gpu", $"a VM has {q.Gpu}", users, "shut the VM down first")];
        });
}
