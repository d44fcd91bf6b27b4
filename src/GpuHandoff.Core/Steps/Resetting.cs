using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>
/// The rungs of the ladder as writes. Never under a driver of the host, which would find its card blank beneath it
/// (pci-sysfs.c:reset_store does not ask), never under a VM, and never for one function of a slot where it hits them all.
/// </summary>
static class Resetting
{
    static readonly TimeSpan _returns = TimeSpan.FromSeconds(5);
    static readonly TimeSpan _between = TimeSpan.FromMilliseconds(100);

    // quirks.c:quirk_nvidia_hda_pm: a bus reset too soon after D0 can wedge the whole card.
    static readonly TimeSpan _settles = TimeSpan.FromMilliseconds(50);

    /// <summary>Climbs one rung.</summary>
    /// <returns>Null: the card was reset and is whole. Else why it was not.</returns>
    /// <exception cref="KernelRefused">The card is lost: nothing may be bound to it.</exception>
    public static string? Climb(Rung rung, Ladder ladder, PciAddress function, IKernel kernel, Limits limits)
    {
        ImmutableArray<PciAddress> hit = rung == Rung.Function ? [function] : ladder.Slot;
        if (WhyNot(rung, ladder, hit, kernel) is { } why)
            return why;

        var before = ladder.Slot.Select(f => (
            Function: f, Owner: Binding.Of(f, kernel), Power: Surveyor.PowerOf(f, kernel), Bars: Surveyor.BarsOf(f, kernel))).ToList();
        string? failed = null;
        try
        {
            foreach (var (f, _, power, _) in before.Where(b => b.Power is not null))
                HoldPower.Set(f, power!.Held(), kernel, limits);
            kernel.Pause(_settles);
            switch (rung)
            {
                case Rung.Function:
                    kernel.Write(Sys.Function(function) / "reset", "1", limits.Reset);
                    break;
                case Rung.Bus:
                    ResetBelow(ladder.Bridge!.Value, kernel, limits);
                    break;
                default:
                    failed = Enumerate(ladder, function, kernel, limits);
                    break;
            }
        }
        catch (KernelRefused refused)
        {
            failed = refused.Message;
        }

        if (ladder.Slot.Where(f => IsMissing(f, kernel)).ToList() is [_, ..] missing)
            throw Lost(function, $"{string.Join(", ", missing)} did not come back to the bus after {ladder.Say(rung)}{Also(failed)}");
        if (ladder.Slot.Where(f => Surveyor.IsGone(f, kernel)).ToList() is [_, ..] gone)
        {
            // A dead card's settings are the kernel's all the same: the run ends here, and as before means these, too.
            foreach (var (f, _, power, _) in before.Where(b => b.Power is not null && !IsMissing(b.Function, kernel)))
                _ = Mending.Twice(() => HoldPower.Set(f, power!, kernel, limits), kernel);
            throw Lost(function, $"after {ladder.Say(rung)} the vendor ID of {string.Join(", ", gone)} reads ffff{Also(failed)}");
        }

        // Nobody else puts this back: it is no step of the plan, so each part is tried, and tried twice.
        foreach (var (f, owner, power, _) in before)
        {
            var owned = rung == Rung.Rescan ? Mending.Twice(() => GiveBack(f, owner, kernel, limits), kernel) : null;
            var powered = power is null ? null : Mending.Twice(() => HoldPower.Set(f, power, kernel, limits), kernel);
            failed ??= (owned ?? powered)?.Message;
        }
        return failed ?? before.Select(b => Shrunk(b.Function, b.Bars, Surveyor.BarsOf(b.Function, kernel))).FirstOrDefault(s => s is not null);
    }

    /// <summary>Climbs until a rung works.</summary>
    public static void Any(Ladder ladder, PciAddress function, IKernel kernel, Limits limits)
    {
        var told = new List<string>();
        foreach (var rung in ladder.Rungs)
        {
            if (Climb(rung, ladder, function, kernel, limits) is not { } why)
                return;
            told.Add($"{ladder.Say(rung)}: {why}");
        }
        throw new KernelRefused($"reset {function}", Errno.NotTypewriter, string.Join("; ", told));
    }

    static string Also(string? failed) => failed is null ? "" : $" ({failed})";

    static KernelRefused Lost(PciAddress function, string what) => new(
        $"reset {function}", Errno.NoDevice,
        $"the card is lost: {what}. Nothing was bound to it. Switch the machine off and on again: a reboot alone may not be enough");

    /// <summary>The world may have moved since the plan was made: what forbids a reset is looked at again.</summary>
    static string? WhyNot(Rung rung, Ladder ladder, ImmutableArray<PciAddress> hit, IKernel kernel)
    {
        foreach (var f in hit)
        {
            if (Binding.Of(f, kernel).Driver is { } driver and not Owner.Vfio)
                return $"not done, {f} is on {driver}";
        }
        if (Holders.FirstOf(hit, kernel) is { } user)
            return $"not done, {user} has it";
        return rung == Rung.Bus && Surveyor.UpstreamOf(ladder.Slot[0], kernel)?.Strangers is [var stranger, ..]
            ? $"not done, {stranger} is on the same bus"
            : null;
    }

    static void ResetBelow(PciAddress bridge, IKernel kernel, Limits limits)
    {
        var file = Sys.Function(bridge) / "reset_subordinate";
        try
        {
            kernel.Write(file, "1", limits.Reset);
        }
        catch (KernelRefused refused) when (refused.Errno == Errno.TryAgain)
        {
            // pci.c:pci_try_reset_bridge only tries the locks of what is below: somebody had one for a moment.
            kernel.Pause(TimeSpan.FromSeconds(1));
            kernel.Write(file, "1", limits.Reset);
        }
    }

    /// <summary>All functions off the bus, and the bus enumerated anew. Whatever happens, it ends with the rescan.</summary>
    static string? Enumerate(Ladder ladder, PciAddress function, IKernel kernel, Limits limits)
    {
        string? failed = null;
        try
        {
            // Off their driver before: a remove that waits for a driver holds the lock that every rescan and hotplug of the
            // machine wants (pci-sysfs.c:remove_store, pci_rescan_remove_lock).
            foreach (var f in ladder.Slot)
                Binding.Release(f, null, kernel, limits);
            // Function 0 last: while it is there the slot is known to have functions.
            foreach (var f in ladder.Slot.Reverse())
            {
                if (Surveyor.DriverOf(f, kernel) is { } driver)
                    throw new KernelRefused($"remove {f}", Errno.Busy, $"{driver} took it at this moment");
                kernel.Write(Sys.Function(f) / "remove", "1", limits.Reset);
            }
        }
        catch (KernelRefused refused)
        {
            failed = refused.Message;
        }
        try
        {
            // The bus's own rescan makes room anew where the bus is empty (pci-sysfs.c:bus_rescan_store).
            kernel.Write(Sys.Bus(function) / "rescan", "1", limits.Reset);
        }
        catch (KernelRefused refused)
        {
            failed ??= refused.Message;
        }
        if (!Await(ladder, kernel))
        {
            kernel.Write(Sys.Pci / "rescan", "1", limits.Reset);
            _ = Await(ladder, kernel);
        }
        return failed;
    }

    static bool Await(Ladder ladder, IKernel kernel)
    {
        var until = kernel.Uptime + _returns;
        while (ladder.Slot.Any(f => IsMissing(f, kernel)))
        {
            if (kernel.Uptime >= until)
                return false;
            kernel.Pause(_between);
        }
        return true;
    }

    static bool IsMissing(PciAddress function, IKernel kernel) => Surveyor.OwnerOf(function, kernel) is null;

    /// <summary>
    /// A function that was enumerated anew is a new device to the kernel: no override, and the first driver that matches has
    /// it already, drivers_autoprobe or not (pci/bus.c:pci_bus_add_device in 6.12). It is given back to whom it belonged.
    /// </summary>
    static void GiveBack(PciAddress function, Owner owner, IKernel kernel, Limits limits)
    {
        Binding.Aim(function, owner.Only, kernel, limits);
        var now = Surveyor.DriverOf(function, kernel);
        if (now is not null && now != owner.Driver && now != owner.Only)
        {
            if (Holders.FirstOf([function], kernel) is { } user)
                throw new KernelRefused($"unbind {function} from {now}", Errno.Busy, $"{user} opened it right after the rescan");
            Binding.Release(function, owner.Driver, kernel, limits);
        }
        if (owner.Driver is { } driver)
            Binding.Bind(function, driver, kernel, limits);
    }

    static string? Shrunk(PciAddress function, ImmutableArray<Bar> before, ImmutableArray<Bar> after)
    {
        foreach (var bar in before)
        {
            var now = after.FirstOrDefault(b => b.Index == bar.Index)?.Size ?? 0;
            if (now < bar.Size)
                return $"BAR {bar.Index} of {function} had {Bar.Say(bar.Size)} before it and has {(now == 0 ? "nothing" : Bar.Say(now))} now";
        }
        return null;
    }
}
