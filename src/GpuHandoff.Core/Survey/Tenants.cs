using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>How it stands with the VMs that cards are lent to.</summary>
static class Tenants
{
    public static Loan Of(Lease lease, Machine machine, IKernel kernel)
    {
        var nodes = machine.Functions().Where(f => f.Address.SharesSlotWith(lease.Gpu) && f.IsOnVfio()).SelectMany(f => f.Nodes).ToList();
        return machine.Users.FirstOrDefault(u => nodes.Exists(n => n.Node.IsSameDevice(u.Node))) is { } user
            ? new(lease, Tenancy.Running, user.ToString())
            : lease.Qemu is { } qemu && ProcessStat.Lives(qemu.Pid, qemu.Started, kernel)
            ? new(lease, Tenancy.Running, $"QEMU runs as process {qemu.Pid}")
            : new(lease, Tenancy.Gone, "its QEMU does not run");
    }
}
