using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>Reads a machine once. Nothing here writes, and nothing here decides.</summary>
public static class Surveyor
{
    static readonly string[] _nvidiaModules = ["nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm"];
    static readonly string[] _remembered = ["modeset", "fbdev"];

    /// <summary>The functions of every display card's slot with their drivers: all that <c>status</c> says, and no more.</summary>
    public static ImmutableArray<PciFunction> Glance(IKernel kernel) =>
    [
        .. Slots(Everything(kernel)).SelectMany(slot => slot)
            .Select(f => f with { Owner = new(DriverOf(f.Address, kernel)) }),
    ];

    /// <summary>The driver and the override of a function now; null where it has left the bus.</summary>
    public static Owner? OwnerOf(PciAddress function, IKernel kernel) =>
        kernel.Exists(Sys.Function(function) / "vendor")
            ? new(DriverOf(function, kernel), OverrideOf(function, kernel))
            : null;

    public static string? DriverOf(PciAddress function, IKernel kernel) =>
        LastPart(kernel.Link(Sys.Function(function) / "driver"));

    // Unset, the kernel says "(null)"; a cleared one reads the same (pci-sysfs.c:driver_override_show).
    public static string? OverrideOf(PciAddress function, IKernel kernel) =>
        kernel.Read(Sys.Function(function) / "driver_override") is { } text and not ("(null)" or "") ? text : null;

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
    public static Machine Survey(IKernel kernel, IEnumerable<Home> homes, Target? target)
    {
        var boot = kernel.Read(Sys.Proc / "sys/kernel/random/boot_id") ?? "";
        var everything = Everything(kernel);
        var all = everything.ToDictionary(f => f.Address);
        var gpus = Slots(everything).Select(slot => ReadGpu(slot, all, kernel)).ToImmutableArray();
        var loaded = ModuleList.Parse(kernel.Read(Sys.Proc / "modules") ?? "");
        var modules = loaded.Select(m => m.Name == "nvidia_drm" ? m with { Parameters = Parameters(m.Name, kernel) } : m)
            .Concat(_nvidiaModules.Append("vfio_pci").Where(name => loaded.All(m => m.Name != name) && StateOf(name, kernel) == ModuleState.BuiltIn)
                .Select(name => new KernelModule(name, ModuleState.BuiltIn, null, [])))
            .ToImmutableArray();
        var drivers = kernel.List(Sys.PciDrivers).ToImmutableArray();
        var remembered = homes.Where(h => h.BootId == boot).ToImmutableArray();

        var machine = new Machine(boot, kernel.Read(Sys.Proc / "sys/kernel/osrelease") ?? "")
        {
            Gpus = gpus,
            Modules = modules,
            Drivers = drivers,
            Loadable = [.. Wanted(gpus, drivers, modules, remembered, target).Where(kernel.CanLoad)],
            Nvidia = kernel.Read(Sys.Proc / "driver/nvidia/version") is { } version ? NvidiaProc.Version(version) : null,
            IommuIsOn = kernel.List(new("/sys/class/iommu")) is not [],
            VfioIds = VfioIds(kernel),
            Consoles = Consoles(kernel),
            FrameBuffers = FrameBuffers(kernel),
            DrmCards = DrmCards(kernel),
            Nodes = NvidiaNodes(kernel),
            HasNvidiaSmi = kernel.Exists(new(Programs.NvidiaSmi)),
            Homes = remembered,
        };
        machine = machine with { Users = HasUsers(machine) ? Users(machine, kernel) : [] };
        return target == Target.Vfio ? Explained(machine, kernel) : machine;
    }

    /// <summary>What only those want to know who may have to stop users: who we are ourselves, and what interrupts without a user mean.</summary>
    static Machine Explained(Machine machine, IKernel kernel)
    {
        if (machine.Users is not [])
        {
            machine = machine with
            {
                Ourselves = Ourselves(kernel),
                OurOwn = Cgroup.Parse(kernel.Read(Sys.Proc / "self/cgroup") ?? ""),
            };
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

    static bool IsOpen(Gpu gpu, Machine machine) => machine.Nodes.Where(n => n.Path == $"/dev/nvidia{gpu.Minor}")
        .Concat(gpu.Functions.SelectMany(f => f.Nodes)).Any(n => machine.Users.Any(u => u.Node.IsSameDevice(n.Node)));

    // Enabled
    /// <summary>Kernel persistence mode as nvidia-smi tells it; null where it does not.</summary>
    public static bool? PersistenceOf(PciAddress function, IKernel kernel)
    {
        try
        {
            var (exit, output) = kernel.RunProgram(
                Programs.NvidiaSmi, ["--query-gpu=persistence_mode", "--format=csv,noheader", "-i", function.ToString()], Limits.Default.Program);
            return (exit, output) switch
            {
                (0, "Enabled") => true,
                (0, "Disabled") => false,
                _ => null,
            };
        }
        catch (Exception refused) when (refused is KernelRefused or KernelSilent)
        {
            return null;
        }
    }

    /// <summary>Our PID and those of our ancestors but the first process.</summary>
    static ImmutableArray<int> Ourselves(IKernel kernel)
    {
        var pids = ImmutableArray.CreateBuilder<int>();
        if (int.TryParse(kernel.Link(Sys.Proc / "self"), NumberStyles.None, CultureInfo.InvariantCulture, out var pid))
        {
            // A PID that is in the list already is an ancestor that died and was replaced as we went.
            for (; pid > 1 && !pids.Contains(pid); pid = ProcessStat.Of(pid, kernel)?.Parent ?? 0)
                pids.Add(pid);
        }
        return pids.ToImmutable();
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
        return [.. functions.OrderBy(f => f.Address).Select(f => f with { Id = IdOf(f, functions, kernel) })];
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

    static Gpu ReadGpu(List<PciFunction> slot, Dictionary<PciAddress, PciFunction> all, IKernel kernel)
    {
        var functions = slot.Select(f => Read(f, kernel)).ToImmutableArray();
        var display = functions.First(f => f.Class.IsDisplay());
        var neighbours =
            from number in functions.Select(f => f.Group).OfType<int>().Distinct()
            from name in kernel.List(new SysPath($"/sys/kernel/iommu_groups/{number}/devices"))
            where PciAddress.TryParse(name, out _)
            let address = Address(name)
            where !address.SharesSlotWith(display.Address) && all.TryGetValue(address, out var other) && !other.Class.IsBridge()
            select Read(all[address] with { Id = ReadId(address, kernel) }, kernel);

        var gpu = new Gpu(display.Address, functions, [.. neighbours.DistinctBy(f => f.Address).OrderBy(f => f.Address)]);
        // The folder exists exactly while nvidia has the card. Reading it may wake the card, so it is not read otherwise.
        if (display.Owner.Driver != "nvidia"
            || kernel.Read(Sys.Proc / $"driver/nvidia/gpus/{display.Address}/information") is not { } text)
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

    static PciFunction Read(PciFunction function, IKernel kernel)
    {
        var path = Sys.Function(function.Address);
        var group = int.TryParse(
            LastPart(kernel.Link(path / "iommu_group")), NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? number
            : (int?)null;
        return function with
        {
            Owner = new(DriverOf(function.Address, kernel), OverrideOf(function.Address, kernel)),
            Group = group,
            ResetMethods = [.. (kernel.Read(path / "reset_method") ?? "").Split(' ', StringSplitOptions.RemoveEmptyEntries)],
            PowerState = kernel.Read(path / "power_state"),
            Bars = ResourceTable.Parse(kernel.Read(path / "resource") ?? ""),
            BootVga = function.Class.IsVga() ? kernel.Read(path / "boot_vga") switch { "1" => true, "0" => false, _ => null } : null,
            Interrupts = kernel.List(path / "msi_irqs").Count,
            Nodes = [.. OwnNodes(path, group, kernel)],
        };
    }

    static IEnumerable<NamedNode> OwnNodes(SysPath function, int? group, IKernel kernel)
    {
        var paths = new List<string>();
        paths.AddRange(kernel.List(function / "drm").Select(name => $"/dev/dri/{name}"));
        foreach (var card in kernel.List(function / "sound"))
            paths.AddRange(kernel.List(function / "sound" / card).Select(name => $"/dev/snd/{name}"));
        paths.AddRange(kernel.List(function / "vfio-dev").Select(name => $"/dev/vfio/devices/{name}"));
        // An open adapter keeps the unbind waiting, uninterruptibly (i2c-core-base.c:i2c_del_adapter).
        paths.AddRange(kernel.List(function).Where(name => name.StartsWith("i2c-", StringComparison.Ordinal)).Select(name => $"/dev/{name}"));
        if (group is not null)
            paths.Add($"/dev/vfio/{group}");
        foreach (var path in paths)
        {
            if (kernel.NodeAt(new(path)) is { } node)
                yield return new(path, node);
        }
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

    static ImmutableArray<VtConsole> Consoles(IKernel kernel)
    {
        var folder = new SysPath("/sys/class/vtconsole");
        return
        [
            .. from number in kernel.List(folder)
               let name = kernel.Read(folder / number / "name")
               where name is not null
               select new VtConsole(number, name, kernel.Read(folder / number / "bind") == "1"),
        ];
    }

    static ImmutableArray<FrameBuffer> FrameBuffers(IKernel kernel)
    {
        var folder = new SysPath("/sys/class/graphics");
        return
        [
            .. from name in kernel.List(folder)
               where name.StartsWith("fb", StringComparison.Ordinal) && name != "fbcon"
               let device = LastPart(kernel.Link(folder / name / "device"))
               select new FrameBuffer(
                   name,
                   kernel.Read(folder / name / "name") ?? "",
                   device is not null && PciAddress.TryParse(device, out var address) ? address : null),
        ];
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
            .Concat(kernel.List(Sys.Dev / "nvidia-caps").Select(name => $"nvidia-caps/{name}"));
        return
        [
            .. from name in names
               let node = kernel.NodeAt(Sys.Dev / name)
               where node is not null
               select new NamedNode($"/dev/{name}", node),
        ];
    }

    /// <summary>
    /// Whether a look through every process is due. An open node pins its driver's module (nvidia, ALSA, vfio: each takes
    /// a reference in open), so counts without strangers prove that there is none, at the price of one file.
    /// </summary>
    static bool HasUsers(Machine machine)
    {
        var modules = machine.Functions().Select(f => f.Owner.Driver).OfType<string>().Distinct()
            .Select(Profile.ModuleOf).Select(machine.Module).ToList();
        // vfio's device files count on module vfio, which each bound function holds as well: there the count proves nothing.
        return machine.Functions().Any(f => f.IsOnVfio())
            || modules.Exists(m => m is not { State: ModuleState.Loaded, RefCount: not null })
            || modules.Concat(_nvidiaModules.Select(machine.Module)).Any(m => m.Users() > 0);
    }

    static ImmutableArray<GpuUser> Users(Machine machine, IKernel kernel)
    {
        var nodes = machine.Nodes.Concat(machine.Functions().SelectMany(f => f.Nodes)).ToList();
        var users = ImmutableArray.CreateBuilder<GpuUser>();
        foreach (var name in kernel.List(Sys.Proc))
        {
            if (!int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var pid))
                continue;
            var found = from fd in kernel.List(Sys.Proc / name / "fd")
                        let node = kernel.NodeAt(Sys.Proc / name / "fd" / fd)
                        where node is not null && nodes.Exists(n => n.Node.IsSameDevice(node))
                        let path = kernel.Link(Sys.Proc / name / "fd" / fd) ?? $"{node.Major}:{node.Minor}"
                        select new GpuUser(pid, kernel.Read(Sys.Proc / name / "comm") ?? "?", path, node)
                        {
                            Of = Cgroup.Parse(kernel.Read(Sys.Proc / name / "cgroup") ?? ""),
                            Started = ProcessStat.Of(pid, kernel)?.Started ?? 0,
                        };
            users.AddRange(found.DistinctBy(u => (u.Node.Major, u.Node.Minor)));
        }
        return users.ToImmutable();
    }

    static string? LastPart(string? link) => link?[(link.LastIndexOf('/') + 1)..];

    static uint? Hex(string? text) =>
        text is ['0', 'x', ..]
        && uint.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var value)
            ? value
            : null;
}
