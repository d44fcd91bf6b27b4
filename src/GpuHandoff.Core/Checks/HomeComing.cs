using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Checks;

/// <summary>The owner that a function goes back to.</summary>
static class HomeComing
{
    /// <summary>As recorded before the hand-over, else by the function's kind; null where only the kernel can say.</summary>
    public static Owner? Of(Question q, PciFunction function)
    {
        var kept = q.Machine.HomeOf(q.Gpu)?.Of(function.Address);
        if (kept is { Driver: Owner.Vfio } && !q.Policy.For(q.Gpu).Claim)
            return kept;
        // A sibling that had no driver (its module is blacklisted, say) gets none; the card itself is wanted back.
        if (kept is { Driver: not (null or Owner.Vfio) } || (kept is { Driver: null } && function.Address != q.Gpu.Address))
            return Lasting(kept);
        // Nobody wrote down where it came from. On a driver of the host it is at home, whichever that is; an override that
        // aims elsewhere than at vfio-pci is somebody else's business (driverctl's, say).
        if (function.Owner is { Driver: not (null or Owner.Vfio) } now)
            return Lasting(now);
        if (function.Owner.Driver is null && function.Address != q.Gpu.Address && q.Gpu.Display().Owner.Driver is not (null or Owner.Vfio))
            return Lasting(function.Owner);
        return Profile.HomeDriver(function) is { } known ? new(known) : null;
    }

    // Away from vfio-pci an override to it is a leftover: with the next load of its driver the function would be gone.
    static Owner Lasting(Owner home) => home is { Driver: not Owner.Vfio, Only: Owner.Vfio } ? home with { Only = null } : home;
}
