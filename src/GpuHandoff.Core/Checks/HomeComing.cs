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
        if (kept is { Driver: Owner.Vfio } && !q.Policy.Claim)
            return kept;
        if (kept is { Driver: not (null or Owner.Vfio) })
            return kept;
        // Nobody wrote down where it came from. On a driver of the host it is at home, whichever that is.
        if (function.Owner is { Driver: not (null or Owner.Vfio) } now)
            return now with { Only = null };
        return Profile.HomeDriver(function) is { } known ? new(known) : null;
    }
}
