using System.Collections.Concurrent;
using System.Globalization;
using GpuHandoff.Checks;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>
/// Finds the processes that have a GPU's nodes open, by device number: by their descriptors and by their mappings, which
/// outlive the descriptor (mm/mmap.c: each keeps the file). Containers' processes are among them, under the host's PIDs.
/// </summary>
/// <remarks>
/// Not seen: a descriptor on its way through a socket, a dma-buf in another process, a file that io_uring keeps, a thread
/// with a descriptor table of its own (clone without CLONE_FILES). The modules' counts and nvidia's interrupts show that
/// somebody is there; <see cref="Idleness"/> and the checks go by them.
/// </remarks>
public static class Holders
{
    const string VfioDevice = "anon_inode:[vfio-device]";

    /// <summary>
    /// Whether a look through every process is due. An open node pins a module (nvidia and its i2c adapters, ALSA, DRM with
    /// its frame buffers, vfio: each takes a reference in open), so counts without strangers prove that there is none, at
    /// the price of one file.
    /// </summary>
    public static bool AreDue(Machine machine) =>
        // vfio's device files count on module vfio, which each bound function holds as well: there the count proves nothing.
        machine.Functions().Any(f => f.IsOnVfio()) || HoldsCount(machine);

    /// <summary>The machine with those who use its GPUs.</summary>
    public static Machine Find(Machine machine, IKernel kernel)
    {
        var wanted = machine.Nodes.Concat(machine.Functions().SelectMany(f => f.Nodes.Concat(f.YieldingNodes)))
            .Select(n => Number(n.Node)).ToHashSet();
        var vfio = OpenVfio(machine);
        var groups = vfio > 0 ? VfioNodes(kernel) : [];
        // A mapping holds its file: where counts show that nothing is open, nothing is mapped. Only a closed vfio is so cheap.
        var mappings = vfio is not 0 || HoldsCount(machine) ? new Mappings(wanted, kernel) : null;
        var names = new Names(kernel);
        var pids = kernel.List(Sys.Proc).Select(Pid).OfType<int>().ToArray();
        var users = new GpuUser[pids.Length][];
        var shown = new int[pids.Length];
        var unseen = kernel.Look(pids.Length, i =>
        {
            var process = Sys.Proc / pids[i].ToString(CultureInfo.InvariantCulture);
            var open = kernel.NodesIn(process / "fd");
            var held = open.Where(n => wanted.Contains(Number(n.Node)))
                .Select(n => (Path: kernel.Link(new(n.Path)) ?? $"{n.Node.Major}:{n.Node.Minor}", n.Node, Mapped: false))
                .Concat(mappings?.Of(process) ?? [])
                .DistinctBy(h => Number(h.Node)).ToList();
            if (groups.Count > 0 && open.Any(n => groups.ContainsKey(Number(n.Node))))
                shown[i] = DevicesShown(process, open, groups, kernel);
            if (held is not [])
                users[i] = [.. names.Of(pids[i], process, held)];
        });
        return machine with
        {
            Unseen = [.. unseen.Select(i => pids[i])],
            Users = [.. users.OfType<GpuUser[]>().SelectMany(u => u)],
            Vfio = vfio is { } counted ? new(counted, shown.Sum()) : null,
        };
    }

    /// <summary>
    /// Who has a function open that is about to be taken from its driver; null: nobody. The module's count, one file, shows
    /// in most cases that nobody can be there.
    /// </summary>
    public static GpuUser? OfBound(PciAddress function, string driver, IKernel kernel)
    {
        var modules = ModuleList.Parse(kernel.Read(Sys.Proc / "modules") ?? "")
            .Where(m => driver == "nvidia" ? NvidiaStack.Has(m.Name) : m.Name == Profile.ModuleOf(driver)).ToList();
        if (modules.Count > 0 && Idleness.AreUnused(modules))
            return null;
        return FirstOf([function], kernel);
    }

    /// <summary>
    /// A process that has a node of these functions open at this moment; null: nobody. For a reset or an unbind that
    /// nobody planned for.
    /// </summary>
    public static GpuUser? FirstOf(IEnumerable<PciAddress> functions, IKernel kernel)
    {
        var wanted = functions.SelectMany(f => Surveyor.NodesOf(f, kernel).Select(n => Number(n.Node)).Concat(Surveyor.NvidiaNodeOf(f, kernel))).ToHashSet();
        if (wanted.Count == 0)
            return null;
        foreach (var name in kernel.List(Sys.Proc))
        {
            if (Pid(name) is not { } pid || kernel.NodesIn(Sys.Proc / name / "fd").FirstOrDefault(n => wanted.Contains(Number(n.Node))) is not { } held)
                continue;
            return new Names(kernel).Of(pid, Sys.Proc / name, [(kernel.Link(new(held.Path)) ?? held.Path, held.Node, false)]).First();
        }
        return null;
    }

    /// <summary>
    /// Who has a node of one of NVIDIA's modules open at this moment, by the numbers of now: the names in /dev may be gone
    /// already. For a module that stays in use against the plan.
    /// </summary>
    public static IReadOnlyList<GpuUser> OfModule(string module, IKernel kernel)
    {
        var devices = kernel.Read(Sys.Proc / "devices") ?? "";
        var functions = kernel.List(Sys.Driver("nvidia")).Select(name => PciAddress.TryParse(name, out var function) ? function : (PciAddress?)null)
            .OfType<PciAddress>().SelectMany(f => Surveyor.NodesOf(f, kernel)).Select(n => Number(n.Node)).ToHashSet();
        var uvm = CharDevices.Major(devices, "nvidia-uvm");
        uint?[] capabilities = [CharDevices.Major(devices, "nvidia-caps"), CharDevices.Major(devices, "nvidia-caps-imex-channels")];
        bool Holds(DeviceNode node) => module switch
        {
            "nvidia_uvm" => node.Major == uvm,
            "nvidia_modeset" => node is { Major: Nvidia, Minor: Modeset },
            "nvidia_drm" => node.Major is Drm or FrameBuffer && functions.Contains(Number(node)),
            "nvidia" => node is { Major: Nvidia, Minor: not Modeset } || capabilities.Contains(node.Major)
                || (node.Major is not (Drm or FrameBuffer) && functions.Contains(Number(node))),
            _ => false,
        };

        var names = new Names(kernel);
        return
        [
            .. from name in kernel.List(Sys.Proc)
               let pid = Pid(name)
               where pid is not null
               let held = kernel.NodesIn(Sys.Proc / name / "fd").FirstOrDefault(n => Holds(n.Node))
               where held is not null
               from user in names.Of(pid.Value, Sys.Proc / name, [(kernel.Link(new(held.Path)) ?? held.Path, held.Node, false)])
               select user,
        ];
    }

    // include/uapi/linux/major.h, drm.h, and nvidia's own nv-chardev-numbers.h.
    const uint FrameBuffer = 29;
    const uint Nvidia = 195;
    const uint Drm = 226;
    const uint Modeset = 254;

    static int? Pid(string name) => int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var pid) ? pid : null;

    static (uint, uint) Number(DeviceNode node) => (node.Major, node.Minor);

    static int? OpenVfio(Machine machine) =>
        machine.Functions().Any(f => f.IsOnVfio()) && machine.Module("vfio_pci") is { State: ModuleState.Loaded, RefCount: not null } module
            ? module.Users()
            : null;

    static bool HoldsCount(Machine machine)
    {
        // USB has no nodes of its own here, and its module's count tells nothing of who uses what is plugged in.
        var drivers = machine.Functions().Where(f => f.Owner.Driver == "nvidia" || f.Nodes is not [])
            .Select(f => f.Owner.Driver).OfType<string>().Where(d => d != Owner.Vfio).Distinct();
        var modules = drivers.Select(Profile.ModuleOf).Select(machine.Module).ToList();
        return modules.Exists(m => m is not { State: ModuleState.Loaded, RefCount: not null })
            || modules.Concat(NvidiaStack.TopDown.Select(machine.Module)).Any(m => m.Users() > 0)
            || AdaptersCount(machine);
    }

    // nvidia's i2c adapters pin nvidia. Those of a DisplayPort pin drm_display_helper (drm_dp_helper.c:drm_dp_aux_register),
    // which counts its dependants, too: but every open adapter pins i2c_dev, where that is a module.
    static bool AdaptersCount(Machine machine) =>
        machine.Module("i2c_dev") is not { State: ModuleState.Loaded, RefCount: 0 }
        && machine.Functions().Any(f => f.Owner.Driver != "nvidia" && f.Nodes.Any(n => n.Path.StartsWith("/dev/i2c-", StringComparison.Ordinal)));

    /// <summary>Every node that leads to a device of vfio, other cards' and other makers' too, with how many it leads to.</summary>
    static Dictionary<(uint, uint), int> VfioNodes(IKernel kernel)
    {
        var folder = Sys.Dev / "vfio";
        var nodes = new Dictionary<(uint, uint), int>();
        foreach (var name in kernel.List(folder))
        {
            if (int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var group) && kernel.NodeAt(folder / name) is { } node)
                nodes[Number(node)] = DevicesIn(group, kernel);
        }
        foreach (var name in kernel.List(folder / "devices"))
        {
            if (kernel.NodeAt(folder / "devices" / name) is { } node)
                nodes[Number(node)] = 1;
        }
        return nodes;
    }

    static int DevicesIn(int group, IKernel kernel) => kernel.List(new($"/sys/kernel/iommu_groups/{group}/devices"))
        .Count(name => PciAddress.TryParse(name, out var address) && Surveyor.DriverOf(address, kernel) == Owner.Vfio);

    /// <summary>How many devices a process may have open: those of its nodes, or as many as it shows descriptors of, if fewer.</summary>
    static int DevicesShown(SysPath process, IReadOnlyList<NamedNode> open, Dictionary<(uint, uint), int> groups, IKernel kernel)
    {
        var most = open.Select(n => Number(n.Node)).Distinct().Sum(n => groups.GetValueOrDefault(n));
        // A group's devices come as descriptors of their own, without a node (vfio/group.c:vfio_device_open_file).
        var descriptors = kernel.List(process / "fd").Count(fd => kernel.Link(process / "fd" / fd) == VfioDevice);
        return descriptors == 0 ? most : Math.Min(most, descriptors);
    }

    /// <summary>
    /// Mapped devices. A file is looked at once, whichever and how many processes have it mapped: nearly all are libraries,
    /// and the same ones everywhere.
    /// </summary>
    sealed class Mappings(HashSet<(uint, uint)> wanted, IKernel kernel)
    {
        readonly ConcurrentDictionary<string, DeviceNode?> _known = new(StringComparer.Ordinal);

        public List<(string Path, DeviceNode Node, bool Mapped)> Of(SysPath process)
        {
            if (kernel.Read(process / "maps") is not { Length: > 0 } text)
                return [];
            List<(string Path, DeviceNode Node, bool Mapped)>? found = null;
            var known = _known.GetAlternateLookup<ReadOnlySpan<char>>();
            foreach (var line in text.AsSpan().Split('\n'))
            {
                if (!MappedFile.TryParse(text.AsSpan()[line], out var mapped))
                    continue;
                if (!known.TryGetValue(mapped.File, out var node))
                {
                    node = kernel.NodeAt(process / "map_files" / mapped.Range());
                    known[mapped.File] = node is not null && wanted.Contains(Number(node)) ? node : node = null;
                }
                if (node is not null)
                    (found ??= []).Add((mapped.Path.ToString(), node, true));
            }
            return found ?? [];
        }
    }

    /// <summary>Puts names to processes; what is the same for all of them is read once.</summary>
    sealed class Names(IKernel kernel)
    {
        readonly Lazy<string> _passwd = new(() => kernel.Read(new("/etc/passwd")) ?? "");
        readonly Lazy<string?> _ourNamespace = new(() => kernel.Link(Sys.Proc / "self/ns/pid"));

        public IEnumerable<GpuUser> Of(int pid, SysPath process, IEnumerable<(string Path, DeviceNode Node, bool Mapped)> held)
        {
            var command = ProcessFiles.Plain(kernel.Read(process / "comm") ?? "?");
            var uid = ProcessFiles.User(kernel.Read(process / "status") ?? "");
            var of = Cgroup.Parse(kernel.Read(process / "cgroup") ?? "") with
            {
                User = uid is { } user ? ProcessFiles.NameOf(user, _passwd.Value) ?? user.ToString(CultureInfo.InvariantCulture) : null,
            };
            var process0 = new GpuUser(pid, command, "", new(0, 0, 0, 0, 0))
            {
                Of = of,
                Exe = kernel.Link(process / "exe") is { } exe ? ProcessFiles.Plain(exe) : null,
                Uid = uid,
                Started = ProcessStat.Of(pid, kernel)?.Started ?? 0,
                Script = ProcessFiles.Script(command, kernel.Read(process / "cmdline") ?? ""),
                Apart = kernel.Link(process / "ns/pid") is { } space && _ourNamespace.Value is { } ours && space != ours,
            };
            return held.Select(h => process0 with { Path = ProcessFiles.Plain(h.Path), Node = h.Node, Mapped = h.Mapped });
        }
    }
}
