using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Runs;

/// <summary>Looks for what is lent to VMs that are gone: what a timer does, a watch, and a person who asks.</summary>
sealed class Rounds(IKernel kernel, ILedger ledger, IWitness witness, Turn turn, Leftovers leftovers, Marks marks)
{
    /// <summary>
    /// What a timer does: ends what did not end itself, then takes back what is lent to VMs that are gone, and stay so for as
    /// long as their manager may need to notice it.
    /// </summary>
    /// <param name="waits">A person asks: see <see cref="Leftovers.Recover"/> and <see cref="Reconcile"/>.</param>
    public ImmutableArray<Ending> Make(PolicySet policy, bool waits, CancellationToken stop)
    {
        var ended = leftovers.Recover(policy, waits, stop);
        if (!waits)
        {
            var boot = Surveyor.BootId(kernel);
            for (var until = kernel.Uptime + Watch.Grace; kernel.Uptime < until && !stop.IsCancellationRequested
                && ledger.Leases().Any(l => l.BootId == boot && Tenants.Glance(l, kernel).Tenancy == Tenancy.Gone);)
            {
                kernel.Pause(TimeSpan.FromSeconds(1));
            }
        }
        return [.. ended, .. Reconcile(policy, waits, stop)];
    }

    /// <summary>
    /// Takes back what is lent to VMs that no longer have it and are not about to: the way home from every start that failed and
    /// every end that nobody told us of. On a host that is going down nothing is: loading drivers would only keep it up.
    /// </summary>
    /// <param name="waits">A person asks: also what was tried in vain before, and nothing is left for the next time.</param>
    /// <param name="guest">Only what is lent to this VM; null: to any.</param>
    public ImmutableArray<Ending> Reconcile(PolicySet policy, bool waits, CancellationToken stop, Guest? guest = null)
    {
        leftovers.DropOtherBoots(stop);
        marks.TellOfDamage(waits);
        foreach (var (lease, evidence) in waits ? Expected(ledger, kernel) : [])
            witness.Tells($"{lease.Gpu} stays on {Owner.Vfio} for {lease.Guest}: {evidence}; it comes home by itself if that VM is not back by then");
        var leases = ledger.Leases().Where(l => (guest is null || l.Guest == guest) && WantsALook(l, waits, kernel)).ToList();
        if (leases.Count > 0 && turn.IsHostStopping())
        {
            witness.Waits("the host is going down: what is lent stays where it is");
            return [];
        }
        return [.. leases.Select(lease => turn.Guarded(Homewards(lease, waits), policy.OfVm(lease.Guest.Id), stop)).OfType<Ending>()];
    }

    static Errand Homewards(Lease lease, bool waits) => new(Target.Host, [lease.Gpu])
    {
        For = lease.Guest,
        Still = machine => machine.Loans.Any(l => l.Lease.IsSameAs(lease) && l.Tenancy == Tenancy.Gone),
        Waits = waits,
        IsUnasked = true,
    };

    /// <summary>Whether locks and a survey are worth while: most of the time a VM just runs.</summary>
    static bool WantsALook(Lease lease, bool waits, IKernel kernel) => (waits || !lease.IsGivenUp()) && Tenants.Glance(lease, kernel) is var loan
        && (loan.Tenancy == Tenancy.Gone || loan.Lease.Qemu != lease.Qemu);

    /// <summary>What is kept for VMs that come back, and why that is believed.</summary>
    static IEnumerable<(Lease Lease, string Evidence)> Expected(ILedger ledger, IKernel kernel) =>
        from lease in ledger.Leases()
        where lease.BootId == Surveyor.BootId(kernel) && lease.ExpectedBack?.Until > kernel.Uptime
        let loan = Tenants.Glance(lease, kernel)
        where loan.Tenancy == Tenancy.InMotion
        select (lease, loan.Evidence);

    /// <summary>Nothing that <see cref="Leftovers.Recover"/> or <see cref="Reconcile"/> would do anything about: seen from a few small files.</summary>
    public static bool IsAllWell(IKernel kernel, ILedger ledger, bool waits)
    {
        var boot = Surveyor.BootId(kernel);
        return !ledger.Unfinished().Any(u => waits || !u.Stuck)
            && !ledger.Leases().Any(l => l.BootId != boot || WantsALook(l, waits, kernel))
            && !(waits && Expected(ledger, kernel).Any())
            && ledger.Damaged().All(d => !waits && !d.IsOfEarlierBoot && ledger.IsKnown(d))
            && !ledger.Homes().Any(h => h.BootId != boot)
            && !ledger.Wedges().Any(w => w.BootId != boot);
    }
}
