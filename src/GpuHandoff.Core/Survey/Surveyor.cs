using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;

namespace GpuHandoff.Survey;

/// <summary>Reads a machine once. Nothing here writes, and nothing here decides.</summary>
public static class Surveyor
{
    static readonly string[] _nvidiaModules = ["nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm"];
    static readonly string[] _capabilities = ["nvidia-caps", "nvidia-caps-imex-channels"];
    static readonly string[] _remembered = ["modeset", "fbdev"];

    // A healthy kernel answers in microseconds, and a card that wakes up for it in a second.
    static readonly TimeSpan _slowRead = TimeSpan.FromSeconds(5);

    /// <summary>The functions of every display card's slot with their drivers: all that <c>status</c> says, and no more.</summary>
    public static ImmutableArray<PciFunction> Glance(IKernel kernel) =>
    [
        .. Slots(Everything(kernel)).SelectMany(slot => slot)
            .Select(f => f with { Owner = new(DriverOf(f.Address, kernel)) }),
    ];

    /// <summary>The display cards by address and kind, to choose among them: no read that a stuck card could hold up.</summary>
    public static Machine Cards(IKernel kernel) => new("", "")
    {
        Gpus = [.. Slots(Everything(kernel)).Select(slot => new Gpu(slot.First(f => f.Class.IsDisplay()).Address, [.. slot], []))],
    };

    public static string BootId(IKernel kernel) => kernel.Read(Sys.Proc / "sys/kernel/random/boot_id") ?? "";

    /// <summary>The driver and the override of a function now; null where it has left the bus.</summary>
    public static Owner? OwnerOf(PciAddress function, IKernel kernel) =>
        kernel.Exists(Sys.Function(function) / "vendor")
            ? new(DriverOf(function, kernel), OverrideOf(function, kernel))
            : null;

    public static string? DriverOf(PciAddress function, IKernel kernel) =>
        LastPart(kernel.Link(Sys.Function(function) / "driver"));

    // Unset, the kernel says "(null)"; a cleared one reads the same (pci-sysfs.c:driver_override_show).
    public static string? OverrideOf(PciAddress function, IKernel kernel) =>
        kernel.ReadSlow(Sys.Function(function) / "driver_override", _slowRead) is { } text and not ("(null)" or "") ? text : null;

    /// <summary>What the kernel may do to a function that idles; null where it does not tell, or the function has left the bus.</summary>
    public static Power? PowerOf(PciAddress function, IKernel kernel)
    {
        var path = Sys.Function(function);
        var control = kernel.Read(path / "power/control");
        bool? cold = kernel.Read(path / "d3cold_allowed") switch { "1" => true, "0" => false, _ => null };
        return control is null && cold is null ? null : new(control, cold);
    }

    public static ImmutableArray<Bar> BarsOf(PciAddress function, IKernel kernel) =>
        ResourceTable.Parse(kernel.Read(Sys.Function(function) / "resource") ?? "");

    /// <summary>
    /// Whether a function that the kernel still lists answers no more: all that is read from the bus where nothing answers
    /// is ones. The <c>vendor</c> file would not tell, it is what was read at enumeration (pci-sysfs.c:pci_config_attr).
    /// </summary>
    public static bool IsGone(PciAddress function, IKernel kernel) =>
        kernel.ReadBytes(Sys.Function(function) / "config", 2) is [0xff, 0xff];

    /// <summary>
    /// The same with the cards that have fallen off the bus. Asked only of cards that a run is about, and only where a read of the
    /// config space disturbs nothing: it wakes a function that sleeps (pci-sysfs.c:pci_config_pm_runtime_get), so not under a driver
    /// of the host, which would notice that itself, and not under a VM.
    /// </summary>
    /// <exception cref="KernelSilent">The read waits for a reset that another program has begun.</exception>
    public static Machine WithLost(Machine machine, IEnumerable<PciAddress> gpus, IKernel kernel)
    {
        var wanted = gpus.ToHashSet();
        return machine with
        {
            Gpus =
            [
                .. machine.Gpus.Select(gpu => !wanted.Contains(gpu.Address) || machine.WedgeOf(gpu) is not null || IsUsed(machine, gpu)
                    ? gpu
                    : gpu with { Functions = [.. gpu.Functions.Select(f => f.Class.IsDisplay() && f.Owner.Driver is null or Owner.Vfio && !IsVirtual(f.Address, kernel) ? f with { IsLost = IsGone(f.Address, kernel) } : f)] }),
            ],
        };
    }

    // A virtual function's own vendor ID reads as ones by the specification (SR-IOV 3.4.1.1), and sysfs gives it as it reads.
    static bool IsVirtual(PciAddress function, IKernel kernel) => kernel.Link(Sys.Function(function) / "physfn") is not null;

    static bool IsUsed(Machine machine, Gpu gpu)
    {
        var nodes = gpu.Functions.Where(f => f.IsOnVfio()).SelectMany(f => f.Nodes).ToList();
        return machine.LoanOf(gpu)?.Tenancy is Tenancy.Running or Tenancy.InMotion || machine.Users.Any(u => nodes.Exists(n => n.Node.IsSameDevice(u.Node)));
    }

    /// <summary>The bridge above a function now; null on a root bus.</summary>
    public static Upstream? UpstreamOf(PciAddress function, IKernel kernel)
    {
        // ../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0
        if (kernel.Link(Sys.Function(function))?.Split('/') is not [.., var above, _] || !PciAddress.TryParse(above, out var bridge))
            return null;
        var path = Sys.Function(bridge);
        return new(bridge, kernel.Exists(path / "reset_subordinate"),
        [
            .. kernel.List(path).Where(name => PciAddress.TryParse(name, out _)).Select(Address)
                .Where(other => !other.SharesSlotWith(function)),
        ]);
    }

    /// <summary>The DRM, ALSA and vfio nodes of a function now.</summary>
    public static ImmutableArray<NamedNode> NodesOf(PciAddress function, IKernel kernel) =>
        Attachments.Of(Sys.Function(function), GroupOf(function, kernel), kernel).Nodes;

    /// <summary>The number of /dev/nvidiaN while nvidia has the card. The node may have any name, or none at all.</summary>
    public static IEnumerable<(uint, uint)> NvidiaNodeOf(PciAddress function, IKernel kernel)
    {
        // NV_MAJOR_DEVICE_NUMBER (nvidia/nv-chardev-numbers.h).
        const uint major = 195;
        return kernel.ReadSlow(Sys.Proc / $"driver/nvidia/gpus/{function}/information", _slowRead) is { } text
            && NvidiaProc.Information(text).Minor is { } minor ? [(major, (uint)minor)] : [];
    }

    static int? GroupOf(PciAddress function, IKernel kernel) => int.TryParse(
        LastPart(kernel.Link(Sys.Function(function) / "iommu_group")), NumberStyles.None, CultureInfo.InvariantCulture, out var number)
        ? number
        : null;

    public static ModuleState StateOf(string module, IKernel kernel) => kernel.Read(Sys.Module(module) / "initstate") switch
    {
        "live" => ModuleState.Loaded,
        "coming" => ModuleState.Loading,
        "going" => ModuleState.Unloading,
        // Built-in code has a folder only where it has parameters or a version.
        _ => kernel.Exists(Sys.Module(module)) ? ModuleState.BuiltIn : ModuleState.Absent,
    };

    /// <summary>Everything that a decision needs.</summary>
    /// <param name="target">What the machine is read for: asking modprobe what it would find is dear. Null: just to look.</param>
    /// <param name="wedges">Cards that may not be asked anything that could wait for their lock.</param>
    /// <param name="leases">Cards that are lent: how it stands with their VMs is looked up.</param>
    /// <param name="configs">Whether containers' configs count: they lie where a look may hang, and a recovery goes without.</param>
    public static Machine Survey(
        IKernel kernel, IEnumerable<Home> homes, Target? target, IEnumerable<Wedge>? wedges = null, IEnumerable<Lease>? leases = null, bool configs = true)
    {
        var boot = BootId(kernel);
        ImmutableArray<Wedge> stuck = [.. (wedges ?? []).Where(w => w.BootId == boot)];
        bool IsStuck(PciAddress function) => stuck.Any(w => w.Gpu.SharesSlotWith(function));
        var everything = Everything(kernel);
        var all = everything.ToDictionary(f => f.Address);
        var loaded = ModuleList.Parse(kernel.Read(Sys.Proc / "modules") ?? "");
        var modules = loaded.Select(m => m.Name == "nvidia_drm" ? m with { Parameters = Parameters(m.Name, kernel) } : m)
            .Concat(_nvidiaModules.Append("vfio_pci").Where(name => loaded.All(m => m.Name != name) && StateOf(name, kernel) == ModuleState.BuiltIn)
                .Select(name => new KernelModule(name, ModuleState.BuiltIn, null, [])))
            .ToImmutableArray();
        var drivers = kernel.List(Sys.PciDrivers).ToImmutableArray();
        var remembered = homes.Where(h => h.BootId == boot).ToImmutableArray();

        var machine = new Machine(boot, kernel.Read(Sys.Proc / "sys/kernel/osrelease") ?? "")
        {
            Modules = modules,
            Drivers = drivers,
            Nvidia = kernel.Read(Sys.Proc / "driver/nvidia/version") is { } version ? NvidiaProc.Version(version) : null,
            IommuIsOn = kernel.List(new("/sys/class/iommu")) is not [],
            VfioIds = VfioIds(kernel),
            Consoles = Displays.Consoles(kernel),
            DrmCards = DrmCards(kernel),
            Nodes = NvidiaNodes(kernel),
            HasNvidiaSmi = kernel.Exists(new(Programs.NvidiaSmi)),
            Homes = remembered,
            Wedges = stuck,
        };
        // Last of what every look needs: some of it is read by the hand, which is just coming up.
        var gpus = Slots(everything).Select(slot => ReadGpu(slot, all, IsStuck, kernel)).ToImmutableArray();
        machine = machine with { Gpus = gpus, Loadable = [.. Wanted(gpus, drivers, modules, remembered, target).Where(kernel.CanLoad)] };
        machine = Displays.Add(machine, kernel);
        machine = Holders.AreDue(machine) ? Holders.Find(machine, kernel) : machine;
        machine = machine with { Loans = [.. (leases ?? []).Where(l => l.BootId == boot).Select(l => Tenants.Of(l, machine, kernel))] };
        if (target is not null)
        {
            var targets = HostUnits.Targets(gpus.Select(g => g.Address), kernel);
            machine = machine with { HostTargets = targets ?? [], SystemdIsSilent = targets is null };
        }
        return target == Target.Vfio ? Explained(machine, configs, kernel) : machine;
    }

    /// <summary>What only those want to know who may have to stop users: who we are ourselves, and what interrupts without a user mean.</summary>
    static Machine Explained(Machine machine, bool configs, IKernel kernel)
    {
        machine = machine with { Containers = configs ? LxcConfig.Running(kernel) : [] };
        if (machine.Users is not [] || machine.Containers is not [] || machine.HostTargets.Any(t => t.IsActive))
        {
            machine = machine with
            {
                Ourselves = Ancestry.Of(kernel),
                OurOwn = Cgroup.Parse(kernel.Read(Sys.Proc / "self/cgroup") ?? ""),
                Managers = Managers(machine, kernel),
                Services = machine.SystemdIsSilent ? null : HostUnits.Services(ServicesOf(machine), kernel),
                GraphicalSessions = machine.Users.Any(u => u.Of.Session is not null) ? GraphicalSessions(kernel) : [],
                Mps = machine.Users.Any(u => u.IsMps()) ? MpsProcesses.Daemons(kernel) : [],
            };
            // One that did not answer above is not asked again: each silence costs a program's whole time.
            var asks = machine is { SystemdIsSilent: false, Services: not null } && (machine.HostTargets.Any(t => t.Bound.Any(IsDisplayManager))
                || machine.Users.Any(u => IsDisplayManager(u.Of.Unit) || machine.IsGraphical(u.Of.Session)));
            machine = machine with { DisplayManager = asks ? HostUnits.ActiveDisplayManager(kernel) : null };
        }
        // Asking starts nvidia-smi, and that opens the card: only where nothing else explains what is seen.
        return !machine.HasNvidiaSmi || NvidiaStack.DrmHoldsModules(machine) ? machine : machine with
        {
            Gpus =
            [
                .. machine.Gpus.Select(g => g.Display() is { Owner.Driver: "nvidia", Interrupts: > 0 } && !IsOpen(g, machine)
                    ? g with { Persistence = PersistenceOf(g.Address, kernel) } : g),
            ],
        };
    }

    /// <summary>The services whose processes have a card. Whose work those of NVIDIA's own do is no question, and logind's is the session's.</summary>
    static string[] ServicesOf(Machine machine) =>
    [
        .. machine.Users.Where(u => !u.KeepsASession()).Select(u => u.Of.Unit).OfType<string>()
            .Where(unit => unit.EndsWith(".service", StringComparison.Ordinal) && !NvidiaUnits.Has(unit)).Distinct(),
    ];

    static readonly SysPath _sessions = new("/run/systemd/sessions");

    // "2" and "c1"; "2.ref" is a pipe, and opening that would wait for its other end.
    static ImmutableArray<string> GraphicalSessions(IKernel kernel) =>
    [
        .. kernel.List(_sessions).Where(id => id.All(char.IsAsciiLetterOrDigit))
            .Select(id => LoginSession.Parse(id, kernel.Read(_sessions / id) ?? "")).Where(s => s?.IsGraphical() == true).Select(s => s!.Scope),
    ];

    static ImmutableArray<ContainerKind> Managers(Machine machine, IKernel kernel) =>
    [
        .. machine.Users.Select(u => u.Of.RootsContainer()).OfType<Container>().Concat(machine.Containers.Select(c => c.Container))
            .Select(c => c.Kind).Distinct().Where(kind => kernel.Exists(new(Programs.Of(kind)))),
    ];

    // The alias display-manager.service leads to one of these; each keeps its X server in its own unit.
    static bool IsDisplayManager(string? unit) => unit is HostUnits.DisplayManager
        or "gdm.service" or "gdm3.service" or "sddm.service" or "lightdm.service" or "lxdm.service" or "xdm.service" or "greetd.service" or "ly.service" or "slim.service" or "nodm.service";

    static bool IsOpen(Gpu gpu, Machine machine) => machine.Nodes.Where(n => n.Path == $"/dev/nvidia{gpu.Minor}")
        .Concat(gpu.Functions.SelectMany(f => f.Nodes)).Any(n => machine.Users.Any(u => u.Node.IsSameDevice(n.Node)));

    // Enabled
    /// <summary>Kernel persistence mode as nvidia-smi tells it; null where it does not.</summary>
    public static bool? PersistenceOf(PciAddress function, IKernel kernel) => Query("persistence_mode", function, kernel) switch
    {
        "Enabled" => true,
        "Disabled" => false,
        _ => null,
    };

    // GPU-01234567-89ab-cdef-0123-456789abcdef
    /// <summary>
    /// The machine with the UUIDs of cards that nobody has opened yet. Asking opens them, so it is done only where a policy
    /// goes by UUIDs.
    /// </summary>
    public static Machine WithUuids(Machine machine, IKernel kernel) => !machine.HasNvidiaSmi ? machine : machine with
    {
        Gpus =
        [
            .. machine.Gpus.Select(g => g is { Uuid: null } && g.Display().Owner.Driver == "nvidia" && machine.WedgeOf(g) is null
                ? g with { Uuid = Query("uuid", g.Address, kernel) is { } uuid && uuid.StartsWith("GPU-", StringComparison.Ordinal) ? uuid : null }
                : g),
        ],
    };

    static string? Query(string what, PciAddress function, IKernel kernel)
    {
        try
        {
            var (exit, output) = kernel.RunProgram(
                Programs.NvidiaSmi, [$"--query-gpu={what}", "--format=csv,noheader", "-i", function.ToString()], Limits.Default.Program);
            return exit == 0 ? output : null;
        }
        catch (Exception refused) when (refused is KernelRefused or KernelSilent)
        {
            return null;
        }
    }

    /// <summary>The machine with the names that pci.ids knows, where NVIDIA's own are not to be had.</summary>
    public static Machine Named(Machine machine, string pciIds)
    {
        PciFunction Name(PciFunction f) => f with { Name = f.Name ?? PciIds.Find(pciIds, f.Id) };

        return machine with
        {
            Gpus =
            [
                .. machine.Gpus.Select(g => g with
                {
                    Functions = [.. g.Functions.Select(Name)],
                    Neighbours = [.. g.Neighbours.Select(Name)],
                }),
            ],
        };
    }

    static List<PciFunction> Everything(IKernel kernel)
    {
        var functions = new List<PciFunction>();
        foreach (var name in kernel.List(Sys.PciDevices))
        {
            if (!PciAddress.TryParse(name, out var address))
                continue;
            var path = Sys.Function(address);
            // The class first: most functions of a machine are none of our business, and every read costs.
            if (Hex(kernel.Read(path / "class")) is { } code)
                functions.Add(new(address, default, new((int)code), new(null)));
        }
        return [.. functions.DistinctBy(f => f.Address).OrderBy(f => f.Address).Select(f => f with { Id = IdOf(f, functions, kernel) })];
    }

    static PciId IdOf(PciFunction function, List<PciFunction> all, IKernel kernel)
    {
        if (!all.Exists(f => f.Class.IsDisplay() && f.Address.SharesSlotWith(function.Address)))
            return default;
        return ReadId(function.Address, kernel);
    }

    static PciId ReadId(PciAddress address, IKernel kernel) => new(
        (int)(Hex(kernel.Read(Sys.Function(address) / "vendor")) ?? 0),
        (int)(Hex(kernel.Read(Sys.Function(address) / "device")) ?? 0));

    static IEnumerable<List<PciFunction>> Slots(List<PciFunction> everything) =>
        everything.GroupBy(f => f.Address.Slot).Select(slot => slot.ToList()).Where(slot => slot.Exists(f => f.Class.IsDisplay()));

    static Gpu ReadGpu(
        List<PciFunction> slot, Dictionary<PciAddress, PciFunction> all, Func<PciAddress, bool> isStuck, IKernel kernel)
    {
        var functions = slot.Select(f => Read(f, isStuck, kernel)).ToImmutableArray();
        var display = functions.First(f => f.Class.IsDisplay());
        var neighbours =
            from number in functions.Select(f => f.Group).OfType<int>().Distinct()
            from name in kernel.List(new SysPath($"/sys/kernel/iommu_groups/{number}/devices"))
            where PciAddress.TryParse(name, out _)
            let address = Address(name)
            where !address.SharesSlotWith(display.Address) && all.TryGetValue(address, out var other) && !other.Class.IsBridge()
            select Read(all[address] with { Id = ReadId(address, kernel) }, isStuck, kernel);

        var gpu = new Gpu(display.Address, functions, [.. neighbours.DistinctBy(f => f.Address).OrderBy(f => f.Address)])
        {
            Upstream = UpstreamOf(display.Address, kernel),
        };
        // The folder exists exactly while nvidia has the card. Reading it may wake the card, so it is not read otherwise.
        if (display.Owner.Driver != "nvidia" || isStuck(display.Address)
            || kernel.ReadSlow(Sys.Proc / $"driver/nvidia/gpus/{display.Address}/information", _slowRead) is not { } text)
        {
            return gpu;
        }
        var (model, uuid, minor) = NvidiaProc.Information(text);
        return gpu with
        {
            Minor = minor,
            Uuid = uuid,
            Functions = [.. functions.Select(f => f.Address == display.Address ? f with { Name = model } : f)],
        };
    }

    static PciAddress Address(string name) => PciAddress.TryParse(name, out var address) ? address : default;

    static PciFunction Read(PciFunction function, Func<PciAddress, bool> isStuck, IKernel kernel)
    {
        var path = Sys.Function(function.Address);
        var group = GroupOf(function.Address, kernel);
        var attached = Attachments.Of(path, group, kernel);
        return function with
        {
            Owner = new(DriverOf(function.Address, kernel), isStuck(function.Address) ? null : OverrideOf(function.Address, kernel)),
            Group = group,
            ResetMethods = [.. (kernel.Read(path / "reset_method") ?? "").Split(' ', StringSplitOptions.RemoveEmptyEntries)],
            PowerState = kernel.Read(path / "power_state"),
            Power = PowerOf(function.Address, kernel),
            Bar1Sizes = function.Class.IsDisplay() ? ResourceTable.Sizes(isStuck(function.Address) ? "" : kernel.ReadSlow(path / "resource1_resize", _slowRead) ?? "") : [],
            Bars = ResourceTable.Parse(kernel.Read(path / "resource") ?? ""),
            BootVga = function.Class.IsVga() ? kernel.Read(path / "boot_vga") switch { "1" => true, "0" => false, _ => null } : null,
            Interrupts = kernel.List(path / "msi_irqs").Count,
            Nodes = attached.Nodes,
            YieldingNodes = attached.YieldingNodes,
            Plugged = attached.Plugged,
        };
    }

    static ImmutableArray<string> Parameters(string module, IKernel kernel) =>
    [
        .. from name in _remembered
           let value = kernel.Read(Sys.Module(module) / "parameters" / name)
           where value is not null
           select $"{name}={value}",
    ];

    /// <summary>What a hand-over may have to load and is not there yet.</summary>
    static IEnumerable<string> Wanted(
        ImmutableArray<Gpu> gpus,
        ImmutableArray<string> drivers,
        ImmutableArray<KernelModule> modules,
        ImmutableArray<Home> homes,
        Target? target)
    {
        if (target == Target.Vfio && !drivers.Contains(Owner.Vfio))
            yield return "vfio_pci";
        if (target != Target.Host)
            yield break;

        bool Loaded(string name) => modules.Any(m => m.Name == name);

        // With the driver gone and no record, all of the stack that is installed is wanted back.
        if (gpus.Any(g => g.IsNvidia()) && !Loaded("nvidia"))
        {
            foreach (var name in homes is [] ? _nvidiaModules.Where(name => !Loaded(name)) : ["nvidia"])
                yield return name;
        }
        var wanted = gpus.SelectMany(g => g.Functions).Select(Profile.HomeDriver)
            .Concat(homes.SelectMany(h => h.Functions).Select(f => f.Owner.Driver)).OfType<string>().Distinct();
        foreach (var driver in wanted.Where(driver => driver != "nvidia" && !drivers.Contains(driver)))
            yield return Profile.ModuleOf(driver);
    }

    static ImmutableArray<string> VfioIds(IKernel kernel)
    {
        var folder = new SysPath("/etc/modprobe.d");
        return VfioIdList.Parse(
            kernel.Read(Sys.Proc / "cmdline") ?? "",
            kernel.List(folder).Where(name => name.EndsWith(".conf", StringComparison.Ordinal)).Select(name => kernel.Read(folder / name) ?? ""));
    }

    static ImmutableArray<DrmCard> DrmCards(IKernel kernel) =>
    [
        .. from name in kernel.List(new("/sys/class/drm"))
           where name.StartsWith("card", StringComparison.Ordinal) && !name.Contains('-')
           let device = LastPart(kernel.Link(new SysPath("/sys/class/drm") / name / "device"))
           where device is not null && PciAddress.TryParse(device, out _)
           let address = Address(device)
           select new DrmCard(address, [.. kernel.List(Sys.Function(address) / "drm")]),
    ];

    static ImmutableArray<NamedNode> NvidiaNodes(IKernel kernel)
    {
        var names = kernel.List(Sys.Dev).Where(name => name.StartsWith("nvidia", StringComparison.Ordinal))
            .Concat(_capabilities.SelectMany(folder => kernel.List(Sys.Dev / folder).Select(name => $"{folder}/{name}")));
        return
        [
            .. from name in names
               let node = kernel.NodeAt(Sys.Dev / name)
               where node is not null
               select new NamedNode($"/dev/{name}", node),
        ];
    }

    static string? LastPart(string? link) => link?[(link.LastIndexOf('/') + 1)..];

    static uint? Hex(string? text) =>
        text is ['0', 'x', ..]
        && uint.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var value)
            ? value
            : null;
}
