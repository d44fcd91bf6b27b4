using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>
/// The users of a driver's module, which its count has, and the devices by which processes can be such users. A count that no
/// process explains is a descriptor in flight, or one that io_uring keeps, and an unbind waits for it all the same.
/// </summary>
/// <param name="Users">By the module's count, dependent modules apart.</param>
/// <param name="Numbers">The devices of every function that the driver has, by major and minor.</param>
/// <param name="Explained">Users that are no processes and hold nothing up: a text console, the audio driver of the same GPU.</param>
/// <remarks>
/// What each open takes: sound/core/pcm_native.c:snd_pcm_open and control.c:snd_ctl_open (the module of the sound card),
/// drivers/i2c/i2c-dev.c:i2cdev_open by i2c_get_adapter (the module of the adapter), drivers/gpu/drm/drm_file.c by its fops.
/// </remarks>
sealed record DriverCount(string Driver, string Module, int Users, HashSet<(uint, uint)> Numbers, int Explained)
{
    const uint Drm = 226;
    const uint Alsa = 116;

    // sound/core/sound.c: SNDRV_MINOR_TIMER. A timer is a card's or the system's, and pins the card's module (timer.c:snd_timer_open).
    static readonly (uint, uint) _timer = (Alsa, 33);

    /// <summary>How many users no process shows.</summary>
    /// <param name="seen">What the processes' tables of descriptors show.</param>
    public int Hidden(IEnumerable<IReadOnlyList<OpenDevice>> seen, IKernel kernel) => Users == 0 ? 0
        : Math.Max(0, Users - Explained - OpenDevice.Files(seen.SelectMany(open => open).Where(o => Numbers.Contains((o.Node.Major, o.Node.Minor))), kernel));

    /// <summary>Those of a machine's functions whose drivers' counts can be compared; nvidia and vfio-pci have rules of their own.</summary>
    public static List<DriverCount> Of(Machine machine, IKernel kernel) =>
    [
        .. from driver in machine.Functions().Where(f => f.Nodes is not []).Select(f => f.Owner.Driver).OfType<string>().Distinct()
           where driver is not ("nvidia" or Owner.Vfio)
           let module = machine.Module(Profile.ModuleOf(driver))
           where module is { State: ModuleState.Loaded, RefCount: > 0 }
           let numbers = NumbersOf(driver, machine, kernel)
           where numbers.Count > 0
           select new DriverCount(driver, module.Name, module.Users(), numbers, numbers.Any(n => n.Item1 == Drm)
               ? machine.FrameBuffers.Count(f => f.Driver.StartsWith(driver.Split('-')[0], StringComparison.Ordinal))
                   + (PinsForAudio(driver) ? machine.Functions().Count(f => f.Class.Code >> 8 == 0x0403 && f.Owner.Driver is not (null or Owner.Vfio)) : 0)
               : 0),
    ];

    /// <summary>The same for one function that is about to be taken from its driver; empty where nothing counts (a built-in driver).</summary>
    public static List<DriverCount> Of(PciAddress function, string driver, IReadOnlyList<KernelModule> loaded, IKernel kernel)
    {
        var counts = new List<DriverCount>();
        if (loaded.FirstOrDefault(m => m.Name == Profile.ModuleOf(driver)) is not { RefCount: not null } module)
            return counts;
        var numbers = driver == Owner.Vfio ? [] : NumbersOf(driver, new("", ""), kernel);
        // Nothing that a process could have open: what the count then means is nothing that an unbind waits for.
        if (numbers.Count == 0 && driver != Owner.Vfio)
            return counts;
        var isDrm = numbers.Any(n => n.Item1 == Drm);
        counts.Add(new(driver, module.Name, module.Users(), numbers, isDrm ? DrmExplained(function, driver, kernel) : 0));
        return counts;
    }

    static int DrmExplained(PciAddress function, string driver, IKernel kernel) =>
        Displays.FrameBuffers(kernel).Count(f => f.Driver.StartsWith(driver.Split('-')[0], StringComparison.Ordinal))
            + (!PinsForAudio(driver) ? 0 : kernel.List(Sys.Driver("snd_hda_intel")).Count(name => PciAddress.TryParse(name, out var audio) && audio.SharesSlotWith(function)));

    // An audio function holds the display's driver where that gives its operations an owner (sound/hda/hdac_component.c).
    static bool PinsForAudio(string driver) => driver is "i915" or "xe";

    /// <summary>
    /// The same with users that hold nothing up and are looked for only where a count is not explained: open files of /proc/asound pin
    /// their card's module (sound/core/info.c:alloc_info_private), and any user may open them.
    /// </summary>
    public DriverCount Explain(int[] pids, IKernel kernel)
    {
        if (!Numbers.Any(n => n.Item1 == Alsa))
            return this;
        var inodes = new HashSet<ulong>();
        foreach (var card in kernel.List(Sys.Proc / "asound").Where(name => name.StartsWith("card", StringComparison.Ordinal)))
            Collect(Sys.Proc / "asound" / card, depth: 3, inodes, kernel);
        var open = 0;
        _ = kernel.Look(pids.Length, (i, looking) =>
        {
            var table = Sys.Proc / pids[i].ToString(CultureInfo.InvariantCulture) / "fd";
            foreach (var name in kernel.List(table))
            {
                looking.Proceeds();
                if (looking.IsGivenUp)
                    return;
                // By the inode, which is the same however the file was reached.
                if (kernel.Link(table / name) is { } link && (link.StartsWith("/proc/asound/", StringComparison.Ordinal)
                    || (link.StartsWith('/') && kernel.IdentityOf(table / name) is { Major: 0 } file && inodes.Contains(file.Inode))))
                {
                    Interlocked.Increment(ref open);
                }
            }
        });
        return this with { Explained = Explained + open };
    }

    static void Collect(SysPath folder, int depth, HashSet<ulong> inodes, IKernel kernel)
    {
        foreach (var name in kernel.List(folder))
        {
            if (kernel.IdentityOf(folder / name) is { } file)
                inodes.Add(file.Inode);
            if (depth > 0)
                Collect(folder / name, depth - 1, inodes, kernel);
        }
    }

    static HashSet<(uint, uint)> NumbersOf(string driver, Machine machine, IKernel kernel) =>
    [
        .. from name in kernel.List(Sys.Driver(driver))
           where PciAddress.TryParse(name, out _)
           let address = Parse(name)
           from node in machine.Functions().FirstOrDefault(f => f.Address == address)?.Nodes ?? Surveyor.NodesOf(address, kernel)
           from number in node.Node.Major == Alsa ? [(node.Node.Major, node.Node.Minor), _timer] : new[] { (node.Node.Major, node.Node.Minor) }
           select number,
    ];

    static PciAddress Parse(string name) => PciAddress.TryParse(name, out var address) ? address : default;
}
