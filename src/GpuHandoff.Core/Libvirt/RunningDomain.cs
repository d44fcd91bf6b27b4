using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Runs;
using GpuHandoff.Survey;

namespace GpuHandoff.Libvirt;

/// <summary>A domain whose QEMU is up.</summary>
public static class RunningDomain
{
    /// <summary>
    /// Writes into its leases which process that is: from then on its end is seen at once. libvirt is not asked: it waits for
    /// its hook, and would wait for ever.
    /// </summary>
    public static void Note(Guest domain, ILedger ledger, IKernel kernel)
    {
        var boot = Surveyor.BootId(kernel);
        foreach (var lease in ledger.Leases().Where(l => l.Guest == domain && l.BootId == boot))
        {
            if (Tenants.Glance(lease, kernel) is { Tenancy: Tenancy.Running, Lease: var seen } && seen.Qemu != lease.Qemu)
                ledger.Lend(seen);
        }
    }
}
