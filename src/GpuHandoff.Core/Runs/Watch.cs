using System.Collections.Immutable;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Survey;

namespace GpuHandoff.Runs;

/// <summary>
/// Stays with a VM for as long as GPUs are lent to it, and sees to it that they come home when its manager does not say that
/// it has ended. It only sleeps and looks: what is to be done is done elsewhere, with locks, and by whoever is first.
/// </summary>
/// <param name="kernel">To look at the VM.</param>
/// <param name="ledger">Where the leases are: without them there is nothing to watch over.</param>
/// <param name="takeHome">Takes back what is lent to the VM, if that is still so; false: nothing came of it, as where another run is at work.</param>
/// <param name="tells">Told, once, of what keeps it from looking.</param>
public sealed class Watch(IKernel kernel, ILedger ledger, Func<bool> takeHome, Action<string> tells)
{
    /// <summary>
    /// How long a VM must be gone without a break. Its manager's own end comes in this time: without a lock of Proxmox's before
    /// it, since qmeventd has to notice QEMU's end and start a Perl program, and the report belongs into the VM's task log.
    /// </summary>
    public static TimeSpan Grace { get; } = TimeSpan.FromSeconds(5);

    static readonly TimeSpan _betweenLooks = TimeSpan.FromSeconds(1);
    static readonly TimeSpan _afterATry = TimeSpan.FromSeconds(10);
    static readonly TimeSpan _sleep = TimeSpan.FromMinutes(1);

    /// <summary>Returns when all that is lent to the VM now has come home, was lent anew, or is left to a person.</summary>
    public void Over(Guest guest, CancellationToken stop)
    {
        var sight = new Sight();
        string? told = null;
        while (!stop.IsCancellationRequested)
        {
            try
            {
                if (!Look(guest, sight))
                    return;
                told = null;
            }
            // Nobody comes after us: what cannot be looked at now, or written for a full disk, can be later.
            catch (Exception trouble) when (trouble is LedgerRefused or KernelRefused or KernelSilent)
            {
                if (told != trouble.Message)
                    tells(trouble is LedgerRefused { Hint: var hint } ? $"{trouble.Message}; {hint}" : trouble.Message);
                told = trouble.Message;
                kernel.Pause(_afterATry);
            }
        }
    }

    /// <summary>One look, and what follows from it; false: there is nothing to watch over any more.</summary>
    bool Look(Guest guest, Sight sight)
    {
        var now = Lent(guest);
        ImmutableArray<Lease> watched = [.. now.Where(l => !l.IsGivenUp() && (sight.Watched?.Any(l.IsSameAs) ?? true))];
        sight.Watched = watched;
        if (watched is [])
            return false;
        var loans = watched.Select(l => Tenants.Glance(l, kernel)).ToImmutableArray();
        if (loans.FirstOrDefault(l => l.Tenancy == Tenancy.Running) is { Lease.Qemu: { } qemu })
        {
            (sight.Gone, sight.Again) = (null, _betweenLooks);
            if (!kernel.AwaitEnd(qemu.Pid, qemu.Started, _sleep))
                kernel.Pause(_betweenLooks);
            return true;
        }
        sight.Gone = loans.All(l => l.Tenancy == Tenancy.Gone) ? sight.Gone ?? kernel.Uptime : null;
        if (sight.Gone is not { } since || kernel.Uptime - since < Grace)
        {
            kernel.Pause(_betweenLooks);
            return true;
        }
        // Another run is at work, for a moment as a rule; or somebody has the card's group open, for a moment or for weeks.
        // One that failed has said so.
        sight.Again = takeHome() || sight.Again > _afterATry ? _afterATry : sight.Again;
        if (!Lent(guest).Any(l => watched.Any(l.IsSameAs)))
            return false;
        kernel.Pause(sight.Again);
        sight.Again *= 2;
        return true;
    }

    ImmutableArray<Lease> Lent(Guest guest)
    {
        var boot = Surveyor.BootId(kernel);
        return [.. ledger.Leases().Where(l => l.BootId == boot && l.Guest == guest)];
    }

    /// <summary>What it keeps in mind from one look to the next.</summary>
    sealed class Sight
    {
        /// <summary>The leases that it came for; null: it has not seen any yet.</summary>
        public ImmutableArray<Lease>? Watched { get; set; }

        /// <summary>Since when the VM has been gone without a break.</summary>
        public TimeSpan? Gone { get; set; }

        /// <summary>How long it waits after a try.</summary>
        public TimeSpan Again { get; set; } = _betweenLooks;
    }
}
