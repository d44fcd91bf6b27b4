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
/// Not seen: a descriptor on its way through a socket, a dma-buf in another process, a file that io_uring keeps. The modules'
/// counts (<see cref="DriverCount"/>) and nvidia's interrupts (<see cref="Idleness"/>) show such a user, and the checks go by them.
/// </remarks>
public static partial class Holders
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
        var counted = DriverCount.Of(machine, kernel);
        var ours = machine.Nodes.Concat(machine.Functions().SelectMany(f => f.Nodes.Concat(f.YieldingNodes))).Select(n => Number(n.Node)).ToHashSet();
        // Those of other functions on the same drivers, too: their users explain what the drivers' modules count.
        var wanted = ours.Concat(counted.SelectMany(c => c.Numbers)).ToHashSet();
        var vfio = OpenVfio(machine);
        var groups = vfio > 0 ? VfioNodes(kernel) : [];
        // A mapping holds its file: where counts show that nothing is open, nothing is mapped. Only a closed vfio is so cheap.
        var mappings = vfio is not 0 || HoldsCount(machine) ? new Mappings(ours, kernel) : null;
        var names = new Names(kernel);
        var pids = Pids(kernel);
        var users = new GpuUser[pids.Length][];
        var open = new IReadOnlyList<OpenDevice>[pids.Length];
        var shown = new int[pids.Length];
        var partly = new bool[pids.Length];
        var unseen = kernel.Look(pids.Length, (i, looking) =>
        {
            var process = Process(pids[i]);
            open[i] = kernel.OpenIn(process / "fd", (major, minor) => wanted.Contains((major, minor)) || groups.ContainsKey((major, minor)), looking);
            var whole = true;
            var held = open[i].Where(n => ours.Contains(Number(n.Node))).Select(n => Named(n, kernel))
                .Concat(mappings?.Of(process, looking, out whole) ?? [])
                .DistinctBy(h => Number(h.Node)).ToList();
            if (groups.Count > 0 && open[i].Any(n => groups.ContainsKey(Number(n.Node))))
                shown[i] = DevicesShown(process, open[i], groups, kernel);
            if (held is not [])
                users[i] = [.. names.Of(pids[i], process, held)];
            partly[i] = !whole;
        }).ToHashSet();
        // A look that was given up may still write: what it found by now counts, and no more.
        var seen = pids.Select((_, i) => unseen.Contains(i) ? [] : open[i] ?? []).ToArray();
        var found = users.Where((_, i) => !unseen.Contains(i)).OfType<GpuUser[]>().SelectMany(u => u).ToList();
        counted = [.. counted.Select(c => c.Hidden(seen, kernel) > 0 ? c.Explain(pids, kernel) : c)];
        if (counted.Any(c => c.Hidden(seen, kernel) > 0) || StackIsUnexplained(machine, found))
            found.AddRange(InThreads(pids, seen, ours, wanted, names, kernel));
        return machine with
        {
            Unseen = [.. Enumerable.Range(0, pids.Length).Where(i => unseen.Contains(i) || partly[i]).Select(i => pids[i])],
            Users = [.. found],
            Vfio = vfio is { } many ? new(many, shown.Where((_, i) => !unseen.Contains(i)).Sum()) : null,
            Hidden = [.. from c in counted let hidden = c.Hidden(seen, kernel) where hidden > 0 select new HiddenUse(c.Driver, c.Module, c.Users, c.Users - hidden)
            {
                Owners = [.. machine.Functions().Where(f => f.Owner.Driver == c.Driver).SelectMany(f => Substreams.OwnersOf(f.Address, kernel)).Distinct()],
            }],
        };
    }

    /// <summary>
    /// Threads that have a table of descriptors of their own (clone without CLONE_FILES): /proc/PID/fd does not show those. Looked
    /// for only where a count is not explained otherwise: a busy machine has thousands of threads.
    /// </summary>
    /// <param name="seen">What each process's own table shows; what threads show besides is added.</param>
    static IEnumerable<GpuUser> InThreads(
        int[] pids, IReadOnlyList<OpenDevice>[] seen, HashSet<(uint, uint)> ours, HashSet<(uint, uint)> wanted, Names names, IKernel kernel)
    {
        var users = new GpuUser[pids.Length][];
        var more = new IReadOnlyList<OpenDevice>[pids.Length];
        var unseen = kernel.Look(pids.Length, (i, looking) =>
        {
            var process = Process(pids[i]);
            var threads = kernel.List(process / "task");
            if (threads.Count < 2)
                return;
            List<OpenDevice> own = [];
            foreach (var thread in threads.Where(name => Pid(name) != pids[i]))
            {
                var open = kernel.OpenIn(process / "task" / thread / "fd", (major, minor) => wanted.Contains((major, minor)), looking);
                // The same table as the process's, as nearly every thread has it.
                if (!open.Select(o => (Number(o.Node), o.Count)).SequenceEqual(seen[i].Where(o => wanted.Contains(Number(o.Node))).Select(o => (Number(o.Node), o.Count))))
                    own.AddRange(open.Where(o => seen[i].All(p => Number(p.Node) != Number(o.Node))));
            }
            more[i] = own;
            var held = own.Where(o => ours.Contains(Number(o.Node))).DistinctBy(o => Number(o.Node)).Select(o => Named(o, kernel)).ToList();
            if (held is not [])
                users[i] = [.. names.Of(pids[i], process, held)];
        }).ToHashSet();
        for (var i = 0; i < pids.Length; i++)
        {
            if (!unseen.Contains(i) && more[i] is { Count: > 0 } own)
                seen[i] = [.. seen[i], .. own];
        }
        return users.Where((_, i) => !unseen.Contains(i)).OfType<GpuUser[]>().SelectMany(u => u);
    }

    /// <summary>NVIDIA's modules have users, and no process shows one of them.</summary>
    static bool StackIsUnexplained(Machine machine, List<GpuUser> users)
    {
        var nodes = machine.Nodes.Concat(machine.Functions().Where(f => f.Owner.Driver == "nvidia").SelectMany(f => f.Nodes)).ToList();
        return users.TrueForAll(u => nodes.TrueForAll(n => !n.Node.IsSameDevice(u.Node)))
            && (machine.Functions().Any(f => f is { Owner.Driver: "nvidia", Interrupts: > 0 })
                || NvidiaStack.Loaded(machine).Any(m => m.Users() > 0))
            // With modeset=1 nvidia_drm alone explains interrupts and counts.
            && (!NvidiaStack.DrmHoldsModules(machine) || NvidiaStack.Loaded(machine).Any(m => m.Name is not ("nvidia" or "nvidia_modeset") && m.Users() > 0));
    }

    static int[] Pids(IKernel kernel) => [.. kernel.List(Sys.Proc).Select(Pid).OfType<int>()];

    static SysPath Process(int pid) => Sys.Proc / pid.ToString(CultureInfo.InvariantCulture);

    static (string Path, DeviceNode Node, bool Mapped) Named(OpenDevice open, IKernel kernel) =>
        (kernel.Link(new(open.Path)) ?? $"{open.Node.Major}:{open.Node.Minor}", open.Node, false);

    /// <summary>
    /// A process that has a node of these functions open at this moment; null: nobody. For a reset or an unbind that
    /// nobody planned for.
    /// </summary>
    public static GpuUser? FirstOf(IEnumerable<PciAddress> functions, IKernel kernel)
    {
        var wanted = functions.SelectMany(f => Surveyor.NodesOf(f, kernel).Select(n => Number(n.Node)).Concat(Surveyor.NvidiaNodeOf(f, kernel))).ToHashSet();
        if (wanted.Count == 0)
            return null;
        foreach (var pid in Pids(kernel))
        {
            if (kernel.OpenIn(Process(pid) / "fd", (major, minor) => wanted.Contains((major, minor)), Looking.Alone) is [var held, ..])
                return new Names(kernel).Of(pid, Process(pid), [Named(held, kernel)]).First();
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
        bool Holds(uint major, uint minor) => module switch
        {
            "nvidia_uvm" => major == uvm,
            "nvidia_modeset" => (major, minor) is (Nvidia, Modeset),
            "nvidia_drm" => major is Drm or FrameBuffer && functions.Contains((major, minor)),
            "nvidia" => (major, minor) is (Nvidia, not Modeset) || capabilities.Contains(major)
                || (major is not (Drm or FrameBuffer) && functions.Contains((major, minor))),
            _ => false,
        };

        var names = new Names(kernel);
        return
        [
            .. from pid in Pids(kernel)
               let held = kernel.OpenIn(Process(pid) / "fd", Holds, Looking.Alone)
               where held is not []
               from user in names.Of(pid, Process(pid), [Named(held[0], kernel)])
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
            // 7, and noiommu-0 where vfio works without an IOMMU (drivers/vfio/group.c:vfio_group_find_or_alloc).
            var digits = name.StartsWith("noiommu-", StringComparison.Ordinal) ? name["noiommu-".Length..] : name;
            if (int.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out var group) && kernel.NodeAt(folder / name) is { } node)
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
    static int DevicesShown(SysPath process, IReadOnlyList<OpenDevice> open, Dictionary<(uint, uint), int> groups, IKernel kernel)
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
        // A process may map 65,530 files by default (vm.max_map_count), and each one under another name: what is remembered is bounded.
        const int MostKnown = 20_000;
        const int LongestKnown = 256;

        readonly ConcurrentDictionary<string, DeviceNode?> _known = new(StringComparer.Ordinal);

        /// <summary>The wanted devices that a process has mapped, each once.</summary>
        /// <param name="whole">Whether all of its mappings were looked at.</param>
        public List<(string Path, DeviceNode Node, bool Mapped)> Of(SysPath process, Looking looking, out bool whole)
        {
            List<(string Path, DeviceNode Node, bool Mapped)>? found = null;
            var known = _known.GetAlternateLookup<ReadOnlySpan<char>>();
            // Each wanted device once, however often it is mapped.
            whole = kernel.ReadLines(process / "maps", line =>
            {
                if (!MappedFile.TryParse(line, out var mapped))
                    return;
                if (!known.TryGetValue(mapped.File, out var node))
                {
                    node = kernel.NodeAt(process / "map_files" / mapped.Range());
                    node = node is not null && wanted.Contains(Number(node)) ? node : null;
                    if (_known.Count < MostKnown && mapped.File.Length <= LongestKnown)
                        known[mapped.File] = node;
                }
                if (node is not null && found?.Exists(f => Number(f.Node) == Number(node)) != true)
                    (found ??= []).Add((mapped.Path.ToString(), node, true));
            }, looking);
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
