using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Machines;

namespace GpuHandoff.Checks;

/// <summary>Asked of every wanted card, even where it is where it shall be: on vfio-pci is where the other VM has it, too.</summary>
static class GpuIsLent
{
    public static Check Check { get; } = new(
        "gpu-is-lent", When: null,
        "A GPU serves one VM at a time. Its manager asks for it before it checks whether it is free, and QEMU fails only after the card was taken away.",
        q => Find(q.Machine, q.Gpu, q.Goal) is { } finding ? [finding] : []);

    public static Finding? Find(Machine machine, Gpu gpu, Goal goal)
    {
        if (machine.LoanOf(gpu) is { } loan && loan.Tenancy != Tenancy.Gone && loan.Lease.Guest != goal.For)
        {
            var isExpected = loan is { Tenancy: Tenancy.InMotion, Lease.ExpectedBack: { } back } && loan.Evidence.StartsWith(back.Why, StringComparison.Ordinal);
            return new(Check.Code, $"{gpu} is lent to {loan.Lease.Guest}", [loan.Evidence], (isExpected, goal.Target) switch
            {
                (true, _) => $"wait until {loan.Lease.Guest} is back and stop it then; if it does not come back in that time the GPU comes home by itself",
                (_, Target.Vfio) => $"stop {loan.Lease.Guest} first, or give this VM another GPU",
                _ => $"stop {loan.Lease.Guest} first: the GPU then comes back by itself",
            });
        }
        // A VM whose manager did not tell us. On the way back vm-has-the-gpu waits for it.
        if (goal is not { Target: Target.Vfio, For: { } guest })
            return null;
        // This VM's own QEMU, on its way out.
        var own = machine.LoanOf(gpu)?.Lease.Qemu;
        var nodes = gpu.Functions.Where(f => f.IsOnVfio()).SelectMany(f => f.Nodes).ToList();
        var others = machine.Users.Where(u => nodes.Exists(n => n.Node.IsSameDevice(u.Node)) && own != new QemuProcess(u.Pid, u.Started) && !u.Of.IsSurely(guest))
            .Select(u => u.ToString()).Distinct().ToList();
        return others is []
            ? null
            : new(Check.Code, $"a VM has {gpu} already", [.. others], "stop it first, or give this VM another GPU");
    }
}
