using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>The sysfs protocol for one function's driver, in the small parts that the steps are made of.</summary>
static class Binding
{
    /// <summary>The function's owner now. A function that has left the bus is nobody's to bind.</summary>
    public static Owner Of(PciAddress function, IKernel kernel) =>
        Surveyor.OwnerOf(function, kernel)
        ?? throw new KernelRefused($"look at {function}", Errno.NoDevice, "it has left the PCI bus");

    /// <summary>Lets no driver but this one take the function (null: any).</summary>
    public static void Aim(PciAddress function, string? only, IKernel kernel, Limits limits)
    {
        if (Surveyor.OverrideOf(function, kernel) == only)
            return;
        // sysfs drops an empty write (fs/kernfs/file.c), so "no override" is a bare newline.
        kernel.Write(Sys.Function(function) / "driver_override", $"{only}\n", limits.Write);
        if (Surveyor.OverrideOf(function, kernel) is var now && now != only)
        {
            throw new KernelRefused(
                $"aim {function} at {only ?? "any driver"}", 0, $"the override still reads {now ?? "(null)"} after the write");
        }
    }

    /// <summary>Takes the function from whatever driver has it, other than <paramref name="wanted"/>.</summary>
    public static void Release(PciAddress function, string? wanted, IKernel kernel, Limits limits)
    {
        if (Surveyor.DriverOf(function, kernel) is not { } driver || driver == wanted)
            return;
        // Here, because every way to an unbind leads through here, an undo's too: begun on a card in use it never ends. And
        // waited for here as well: a poller may have come since the step that waited.
        if (driver == "nvidia")
            AwaitIdle.Await(function, $"unbind {function} from nvidia", kernel);
        Unbind(function, driver, kernel, limits);
        if (Surveyor.DriverOf(function, kernel) == driver)
            throw new KernelRefused($"unbind {function} from {driver}", 0, "the kernel reported success, but it still has the function");
    }

    /// <summary>
    /// An unbind waits in the kernel for every open node of the function, and the survey may be minutes old by now. So all are looked
    /// for once more, and the last look of all is made by the process that writes, in the same request: no scan lies between the two,
    /// and a poller that came during the scan is noticed.
    /// </summary>
    static void Unbind(PciAddress function, string driver, IKernel kernel, Limits limits)
    {
        var until = kernel.Uptime + (driver == Owner.Vfio ? _patienceWithVms : _patience);
        while (true)
        {
            var (busy, look) = Holders.BeforeUnbind(function, driver, kernel);
            try
            {
                if (busy is null)
                {
                    kernel.Write(Sys.Driver(driver) / "unbind", function.ToString(), limits.Write, look);
                    return;
                }
            }
            catch (StillInUse use)
            {
                busy = use.Reason;
            }
            if (kernel.Uptime >= until)
                throw new KernelRefused($"unbind {function} from {driver}", Errno.Busy, $"{busy}, and the unbind would wait for that");
            kernel.Pause(_between);
        }
    }

    // A poller's moment.
    static readonly TimeSpan _patience = TimeSpan.FromSeconds(3);

    // A VM that is just ending, maybe another one: its memory is unpinned and its devices are reset when no process shows them any more.
    static readonly TimeSpan _patienceWithVms = TimeSpan.FromSeconds(30);
    static readonly TimeSpan _between = TimeSpan.FromMilliseconds(50);

    /// <summary>
    /// Binds by the driver's own <c>bind</c> file, which tells a failure; <c>drivers_probe</c> reports success where
    /// nothing was bound (drivers/base/bus.c:drivers_probe_store). Even so only the link is believed.
    /// </summary>
    /// <param name="ladder">How to mend a card that the driver does not take. Null: it is asked twice, and that is all.</param>
    public static void Bind(PciAddress function, string driver, IKernel kernel, Limits limits, Ladder? ladder = null) => Mending.Until(
        () => BindOnce(function, driver, kernel, limits),
        refused => refused.Errno is not (Errno.NoDevice or Errno.NoEntry) && Surveyor.DriverOf(function, kernel) is null,
        ladder is null ? [] : [(function, ladder)], kernel, limits);

    static void BindOnce(PciAddress function, string driver, IKernel kernel, Limits limits)
    {
        if (Surveyor.DriverOf(function, kernel) is null)
        {
            if (Surveyor.IsGone(function, kernel))
            {
                throw new KernelRefused(
                    $"bind {function} to {driver}", Errno.NoDevice,
                    "the card is lost: its vendor ID reads ffff. Switch the machine off and on again: a reboot alone may not be enough");
            }
            try
            {
                kernel.Write(Sys.Driver(driver) / "bind", function.ToString(), limits.Write);
            }
            catch (KernelRefused refused) when (refused.Errno == Errno.Busy && Surveyor.DriverOf(function, kernel) == driver)
            {
                // Somebody else (a udev rule) bound it to the very driver at this moment.
            }
        }
        if (Surveyor.DriverOf(function, kernel) is var now && now != driver)
        {
            throw new KernelRefused(
                $"bind {function} to {driver}", 0, $"the kernel reported success, but the function has {now ?? "no driver"}");
        }
    }
}
