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
public sealed class Watch(IKernel kernel, ILedger ledger, Func<bool> takeHome)
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
        var watched = Lent(guest);
        var again = _betweenLooks;
        TimeSpan? gone = null;
        while (!stop.IsCancellationRequested)
        {
            var now = Lent(guest);
            watched = [.. now.Where(l => !l.IsGivenUp() && watched.Any(l.IsSameAs))];
            if (watched is [])
                return;
            var loans = watched.Select(l => Tenants.Glance(l, kernel)).ToImmutableArray();
            if (loans.FirstOrDefault(l => l.Tenancy == Tenancy.Running) is { Lease.Qemu: { } qemu })
            {
                (gone, again) = (null, _betweenLooks);
                if (!kernel.AwaitEnd(qemu.Pid, qemu.Started, _sleep))
                    kernel.Pause(_betweenLooks);
                continue;
            }
            gone = loans.All(l => l.Tenancy == Tenancy.Gone) ? gone ?? kernel.Uptime : null;
            if (gone is { } since && kernel.Uptime - since >= Grace)
            {
                // Another run is at work, for a moment as a rule; or somebody has the card's group open, for a moment or for weeks.
                // One that failed has said so.
                again = takeHome() || again > _afterATry ? _afterATry : again;
                if (!Lent(guest).Any(l => watched.Any(l.IsSameAs)))
                    return;
                kernel.Pause(again);
                again *= 2;
                continue;
            }
            kernel.Pause(_betweenLooks);
        }
    }

    ImmutableArray<Lease> Lent(Guest guest)
    {
        var boot = Surveyor.BootId(kernel);
        return [.. ledger.Leases().Where(l => l.BootId == boot && l.Guest == guest)];
    }
}
