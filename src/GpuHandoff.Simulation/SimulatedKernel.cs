using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>
/// A machine in memory that reacts as the kernel does: what is read is made from models of the PCI bus, the modules and
/// the devices, what is written changes them. A write that nobody taught it throws, so that no test passes on a guess.
/// </summary>
public sealed partial class SimulatedKernel : IKernel
{
    // Small, but not nothing: a loop without a pause must run into its own limit.
    static readonly TimeSpan CallCost = TimeSpan.FromMilliseconds(2);
    static readonly TimeSpan NodeBudget = TimeSpan.FromSeconds(5);

    readonly Clock clock = new();
    readonly List<string> calls = [];
    readonly List<string> asked = [];
    readonly Tree tree;
    TimeSpan deadline;
    bool quiet;
    int lastI2c = 2;
    int nextUvmMajor = 511;

    internal SimulatedKernel(DriverOption driver)
    {
        Bus = new(this);
        Modules = new(this);
        Drm = new(this);
        Consoles = new(this);
        Guests = new(this);
        Nvidia = new(this, driver);
        Systemd = new(this);
        Containers = new(this);
        Mps = new(this);
        Files = new(this);
        Proxmox = new(this);
        Programs.Add(Kernel.Programs.Systemctl, Systemd.Systemctl);
        tree = new(new(() =>
        [
            ("sys", new SysTree(this).Root),
            ("proc", new ProcTree(this).Root),
            ("dev", DevFolder("/dev")),
            ("etc", new Folder(() =>
            [
                ("passwd", new TextFile(() => Accounts)),
                ("pve", new Folder(() => [("lxc", new Folder(() => Containers.Configs)), .. Files.In("/etc/pve")])),
                ("systemd", new Folder(() => [("system", new Folder(() =>
                    HasHostTarget ? [(HostTarget.Template, (Entry)new TextFile(static () => "[Unit]"))] : []))])),
                .. Files.In("/etc").Where(static child => child.Name is not ("pve" or "systemd")),
            ])),
            ("run", new Folder(() => Files.In("/run"))),
            ("var", new Folder(() => [("run", new LinkTo("/run")), ("lock", new LinkTo("/run/lock")), .. Files.In("/var")])),
            ("usr", new Folder(() => [("bin", ProgramFolder("/usr/bin/")), ("sbin", ProgramFolder("/usr/sbin/")), ("local", new Folder(() => Files.In("/usr/local")))])),
        ]));
    }

    /// <summary>Every call that could have changed the machine, in order: <c>write "1" /sys/…</c>, <c>modprobe nvidia</c>.</summary>
    public IReadOnlyList<string> Calls => calls;

    /// <summary>Every program that was started only to ask it something.</summary>
    public IReadOnlyList<string> Asked => asked;

    /// <summary>What is to go wrong.</summary>
    public Faults Faults { get; } = new();

    /// <summary>The resets that were done: <c>0000:01:00.0 flr</c>.</summary>
    public IList<string> ResetLog { get; } = [];

    /// <summary>What no tool may ever do, and somebody did: a reset under a driver, a DRM device freed under open files.</summary>
    public IList<string> Hazards { get; } = [];

    public IEnumerable<PciDevice> Devices => Bus.Devices;

    public IEnumerable<SimulatedProcess> RunningProcesses => Processes.Running;

    /// <summary>The kernel's release (/proc/sys/kernel/osrelease).</summary>
    public string Release { get; init; } = "6.12.94+deb13-amd64";

    public string BootId { get; set; } = "6f1f7a3e-91f4-4a51-8f0e-6f1f3a1c2b4d";

    public string CommandLine { get; set; } = "BOOT_IMAGE=/boot/vmlinuz root=/dev/mapper/pve-root ro quiet intel_iommu=on iommu=pt";

    /// <summary>Older kernels take the device lock for driver_override, so the write hangs behind a stuck unbind.</summary>
    public bool OverrideTakesDeviceLock { get; set; }

    /// <summary>udev loads the driver of a device that appears, by its modalias.</summary>
    public bool UdevLoadsDrivers { get; set; } = true;

    /// <summary>/etc/passwd</summary>
    public string Accounts { get; set; } = """
        root:x:0:0:root:/root:/bin/bash
        ollama:x:997:986::/usr/share/ollama:/bin/false
        alice:x:1000:1000:Alice,,,:/home/alice:/bin/bash
        """;

    /// <summary>Who listens at Unix sockets, by path: what comes back for what was said; null: nothing, for ever.</summary>
    public IDictionary<string, Func<string, string?>> Sockets { get; } = new Dictionary<string, Func<string, string?>>(StringComparer.Ordinal);

    /// <summary>/sys/devices/system/cpu/online</summary>
    public IReadOnlyList<int> OnlineProcessors { get; set; } = [.. Enumerable.Range(0, 16)];

    /// <summary>The template of the host's targets is installed.</summary>
    public bool HasHostTarget { get; set; }

    public TimeSpan Uptime => clock.Now;

    internal PciBus Bus { get; }
    internal Modules Modules { get; }
    internal Nvidia Nvidia { get; }
    internal Drm Drm { get; }
    internal Consoles Consoles { get; }
    internal Nodes Nodes { get; } = new();
    internal Processes Processes { get; } = new();
    internal Guests Guests { get; }
    internal Dictionary<(string Driver, PciAddress Device), ProbeFault> ProbeFaults { get; } = [];
    internal Dictionary<(PciAddress Device, int Bar), ulong> SizesAtRescan { get; } = [];

    internal Systemd Systemd { get; }
    internal ContainerHosts Containers { get; }
    internal Mps Mps { get; }

    /// <summary>Files that are just files, below /etc, /run and /var.</summary>
    public PlainFiles Files { get; }

    /// <summary>What Proxmox keeps on this host. A host without it has none of its files.</summary>
    public ProxmoxHost Proxmox { get; }

    /// <summary>The host's name.</summary>
    public string HostName { get; set; } = "pve1";

    /// <summary>When it was booted, by the clock on the wall (/proc/stat: btime).</summary>
    public DateTimeOffset BootedAt { get; set; } = DateTimeOffset.FromUnixTimeSeconds(1_765_000_000);

    /// <summary>What systemctl is-system-running says: <c>running</c>, <c>degraded</c>, <c>stopping</c>. Null: systemd does not answer.</summary>
    public string? SystemState { get; set; } = "running";

    /// <summary>What is installed, by its path.</summary>
    internal Dictionary<string, InstalledProgram> Programs { get; } = [];
    internal HashSet<PciAddress> LostHardware { get; } = [];
    internal int UvmMajor { get; set; }

    /// <summary>The call that is being made, for who holds what.</summary>
    internal string CallNow { get; set; } = "boot";

    /// <summary>Proxmox's cluster file system waits for its other nodes.</summary>
    public bool ClusterHangs { get; set; }

    /// <summary>Proxmox's cluster file system has died: every look is refused.</summary>
    public bool ClusterIsDead { get; set; }

    // ---- reading ----

    /// <summary>How many looks were made so far; <see cref="Faults"/> names one by its number, from 1.</summary>
    public int Looks { get; private set; }

    /// <summary>Something may happen right before any look: what was seen by an earlier one is old by then.</summary>
    void Looked(SysPath at)
    {
        if (!quiet)
            Faults.MeanwhileLooking(++Looks, at.Text, this);
    }

    Entry? Find(SysPath path, bool follow = true)
    {
        Looked(path);
        return tree.Find(path.Text, follow);
    }

    public string? Read(SysPath file) => Find(file) is TextFile text ? text.Read()?.TrimEnd('\n') : null;

    public string? ReadSlow(SysPath file, TimeSpan budget)
    {
        var device = Bus.Devices.FirstOrDefault(device => file.Text.Contains($"/{device.Address}/", StringComparison.Ordinal));
        // The override on older kernels; what nvidia tells of a card, on all of them.
        if ((device?.LockHolder is not null && (OverrideTakesDeviceLock || file.Text.StartsWith("/proc/driver/nvidia", StringComparison.Ordinal)))
            || (ClusterHangs && file.Text.StartsWith("/etc/pve/", StringComparison.Ordinal)))
        {
            var since = Uptime;
            clock.Advance(budget);
            throw new KernelSilent($"read {file}", budget, since, Helper());
        }
        return ClusterIsDead && file.Text.StartsWith("/etc/pve/", StringComparison.Ordinal)
            ? throw new KernelRefused($"read {file}", Errno.NotConnected, Say(Errno.NotConnected))
            : Read(file);
    }

    public byte[]? ReadBytes(SysPath file, int count) => (Find(file) as TextFile)?.First(count);

    public IReadOnlyList<string> List(SysPath folder) => Find(folder) is Folder found
        ? [.. found.Children().Select(child => child.Name).Order(StringComparer.Ordinal)]
        : [];

    public string? Link(SysPath link) => Find(link, follow: false) switch
    {
        LinkTo found => found.Target,
        HeldFile held => held.Target,
        _ => null,
    };

    public bool Exists(SysPath path) => Find(path, follow: false) is not null;

    public FileIdentity? IdentityOf(SysPath path) => Find(path) is FileOnDisk file ? file.Identity : null;

    public DeviceNode? NodeAt(SysPath path) => Find(path) switch
    {
        NodeFile file => file.Node,
        HeldFile held => held.Node,
        _ => null,
    };

    public IReadOnlyList<int> Look(int count, Action<int, Looking> look)
    {
        var givenUp = new List<int>();
        for (var i = 0; i < count; i++)
        {
            try
            {
                look(i, Looking.Alone);
            }
            catch (DoesNotEnd)
            {
                givenUp.Add(i);
            }
        }
        return givenUp;
    }

    public bool IsSameFile(SysPath descriptor, SysPath other) => FileOf(descriptor) is { } file && FileOf(other) == file;

    OpenNode? FileOf(SysPath descriptor) => descriptor.Text.Split('/') is ["", "proc", var pid, .., "fd", var number]
        ? Processes.Running.FirstOrDefault(process => process.Pid.ToString() == pid)?.Open.FirstOrDefault(file => file.Number == int.Parse(number) % ProcTree.Copies)
        : null;

    public bool ReadLines(SysPath file, OfLine line, Looking looking)
    {
        ArgumentNullException.ThrowIfNull(line);
        // fs/proc/task_mmu.c:m_start waits for the memory lock.
        if (Processes.Running.Any(process => process.IsUnreadable && file.Text == $"/proc/{process.Pid}/maps"))
            throw new DoesNotEnd();
        var text = (Read(file) ?? "").AsSpan();
        foreach (var range in text.Split('\n'))
            line(text[range]);
        return true;
    }

    public bool CanLoad(string module) => Modules.FindFile(module) is not null;

    // ---- changing ----

    public void Write(SysPath file, string text, TimeSpan budget, LastLook? look = null)
    {
        var shown = text.Replace("\n", "\\n");
        Change($"write \"{shown}\" {file}", $"write \"{shown}\" to {file}", budget, StuckBy(file, text), () =>
        {
            // In the same request as the write: what comes after this comes after the write.
            if (look?.WhyNot(this) is { } use)
                throw new InUse(use);
            switch (tree.Find(file.Text))
            {
                case TextFile { Write: { } write }:
                    // C# makes no write(2) of an empty string, and sysfs would drop it (fs/kernfs/file.c).
                    if (text.Length > 0)
                        write(text);
                    break;
                case null when SysTree.IsKnownWrite(file.Text):
                    throw new Refusal(Errno.NoEntry);
                default:
                    throw new InvalidOperationException($"the simulator was not taught what a write to {file} does");
            }
        });
    }

    public void LoadModule(string module, IReadOnlyList<string> parameters, TimeSpan budget)
    {
        var call = string.Join(' ', (string[])["modprobe", module, .. parameters]);
        Change(call, call, budget, null, () => Modules.Load(module, parameters));
    }

    public void UnloadModule(string module, TimeSpan budget) =>
        Change($"rmmod {module}", $"rmmod {module}", budget, null, () => Modules.Unload(module));

    public void MakeNode(SysPath path, DeviceNode node) =>
        Change($"mknod {path}", $"mknod {path}", NodeBudget, null, () =>
        {
            if (Nodes.Find(path.Text) is not null)
                throw new Refusal(Errno.Exists);
            Nodes.Put(path.Text, node);
        });

    public void RemoveNode(SysPath path) =>
        Change($"unlink {path}", $"unlink {path}", NodeBudget, null, () => Nodes.Drop(path.Text));

    public ProgramResult RunProgram(
        string program, IReadOnlyList<string> arguments, TimeSpan budget, string input = "", IReadOnlyList<string>? environment = null)
    {
        var call = string.Join(' ', (string[])[program, .. arguments]);
        if (!Programs.TryGetValue(program, out var installed))
            throw new KernelRefused(call, Errno.NoEntry, Say(Errno.NoEntry));
        if (input.Length > 0)
            call += $" <<< {input.Trim()}";
        ProgramResult Run() => input.Length > 0
            ? installed.Talk?.Invoke(arguments, input.Trim(), environment ?? []) ?? throw InstalledProgram.Untaught(program, [input])
            : installed.Run(arguments);
        var since = Uptime;
        if (input.Length > 0 ? input.StartsWith("get_", StringComparison.Ordinal) : installed.Asks(arguments))
        {
            asked.Add(call);
            try
            {
                return Run();
            }
            catch (NoAnswer)
            {
                throw Late();
            }
        }
        ProgramResult? result = null;
        var late = false;
        try
        {
            Change(call, call, budget, null, () =>
            {
                try
                {
                    result = Run();
                }
                catch (NoAnswer)
                {
                    late = true;
                }
            });
        }
        catch (KernelRefused refused)
        {
            // A fault: a program has words and an exit code, and no errno.
            return new(1, refused.Reason);
        }
        catch (KernelSilent silent)
        {
            // A fault: one that not even SIGKILL ends. It is no call that holds a GPU.
            throw new ProgramSilent(call, program, silent.Process.Pid, budget, isOver: false);
        }
        return late ? throw Late() : result ?? new(0, "");

        ProgramSilent Late()
        {
            if (since + budget - Uptime is var rest && rest > TimeSpan.Zero)
                clock.Advance(rest);
            return new(call, program, Processes.Passing(), budget, isOver: true);
        }
    }

    public void Signal(int pid, ulong startedAt, ProcessSignal signal) =>
        Change($"kill -{(int)signal} {pid}", $"send {signal} to process {pid}", NodeBudget, null, () =>
        {
            if (Processes.Running.FirstOrDefault(process => process.Pid == pid && process.Started == startedAt) is { } process)
                Processes.Signal(process, signal, this);
        });

    public string Converse(SysPath socket, string text, Func<string, bool> isAll, TimeSpan budget)
    {
        asked.Add($"{socket}: {text.Trim()}");
        if (!Sockets.TryGetValue(socket.Text, out var listener))
            throw new KernelRefused($"ask {socket}", Errno.NoEntry, Say(Errno.NoEntry));
        // All, or what came before it hung up.
        if (listener(text) is { } heard)
            return heard;
        clock.Advance(budget);
        throw new KernelRefused($"ask {socket}", 0, $"no answer within {budget.TotalSeconds:0.#} s");
    }

    public void SetAffinity(int thread, IReadOnlyList<int> processors) =>
        Change($"sched_setaffinity {thread} {string.Join(',', processors)}", $"sched_setaffinity of thread {thread}", NodeBudget, null, () =>
        {
            if (Processes.Running.SelectMany(process => process.Threads).FirstOrDefault(t => t.Id == thread) is not { } found)
                throw new Refusal(Errno.NoProcess);
            // kernel/sched/syscalls.c:__sched_setaffinity: what is not there or offline is left out, and nothing left is no place to run.
            List<int> left = [.. processors.Where(OnlineProcessors.Contains).Order()];
            if (left.Count == 0)
                throw new Refusal(Errno.Invalid);
            found.Processors = left;
        });

    public void Pause(TimeSpan time)
    {
        clock.Advance(time);
        Bus.Settle();
    }

    void Change(string call, string said, TimeSpan budget, PciDevice? stuck, Action act)
    {
        var (outerDeadline, outerCall) = (deadline, CallNow);
        Fault? fault = null;
        clock.Advance(CallCost);
        if (!quiet)
        {
            calls.Add(call);
            var number = calls.Count;
            Faults.Meanwhile(number, call, this);
            fault = Faults.For(number, call);
        }
        var since = Uptime;
        switch (fault?.Kind)
        {
            case null:
                Act();
                break;
            case FaultKind.Ignore:
                break;
            case FaultKind.Refuse:
                throw Injected();
            case FaultKind.RefuseAfterwards:
                Act();
                throw Injected();
            case FaultKind.Silent:
                if (stuck is not null)
                {
                    stuck.LockHolder = said;
                    stuck.NeverLets = true;
                    // drivers/pci/pci-sysfs.c:remove_store takes the global lock before the device's.
                    if (call.EndsWith("/remove", StringComparison.Ordinal))
                        Bus.RescanLockHolder = said;
                }
                clock.Advance(budget);
                throw new KernelSilent(said, budget, since, Helper());
            case FaultKind.SilentThenDone:
                Act();
                clock.Advance(budget);
                throw new KernelSilent(said, budget, since, Helper());
        }

        void Act()
        {
            deadline = since + budget;
            CallNow = said;
            try
            {
                act();
                Bus.Settle();
            }
            catch (Refusal refusal)
            {
                throw new KernelRefused(said, refusal.Errno, refusal.Reason ?? Say(refusal.Errno));
            }
            catch (InUse use)
            {
                throw new StillInUse(said, use.Message);
            }
            catch (NoAnswer)
            {
                throw new KernelSilent(said, budget, since, Helper());
            }
            finally
            {
                // Somebody else's call may come in the middle of ours.
                (deadline, CallNow) = (outerDeadline, outerCall);
            }
        }

        // modprobe is a program: it has words, and no errno.
        KernelRefused Injected() => said.StartsWith("modprobe", StringComparison.Ordinal)
            ? new(said, 0, $"modprobe: ERROR: could not insert: {Say(fault.Errno)}")
            : new(said, fault.Errno, Say(fault.Errno));
    }

    /// <summary>The helper process that the call is made in: it stays in it until a test ends it.</summary>
    LeftBehind Helper()
    {
        var helper = StartProcess("gpu-handoff", "/system.slice/gpu-handoff.service");
        helper.CommandLine = ["/usr/sbin/gpu-handoff", "--hand"];
        helper.IsUninterruptible = true;
        return new(helper.Pid, helper.Started, "state D");
    }

    /// <summary>ENXIO is what opening a node without a driver gives; the tool itself never has to tell it apart.</summary>
    internal static string Say(int errno) => errno == NoSuchDevice ? "ENXIO (No such device or address)" : Errno.Say(errno);

    internal const int NoSuchDevice = 6;

    /// <summary>The device whose lock a write takes and, where it never comes back, keeps.</summary>
    PciDevice? StuckBy(SysPath file, string text) => SysTree.TakesDeviceLock(file.Text)
        ? Bus.Find(text.TrimEnd('\n')) ?? Bus.Devices.FirstOrDefault(device => file.Text.Contains($"/{device.Address}/", StringComparison.Ordinal))
        : null;

    // ---- for the models ----

    internal void WaitUntil(Func<bool> done)
    {
        Bus.Settle();
        if (!clock.AdvanceUntil(deadline, () =>
        {
            Bus.Settle();
            return done();
        }))
        {
            throw new NoAnswer();
        }
    }

    /// <summary>The kernel is busy with the call for so long, whatever happens meanwhile.</summary>
    internal void Spend(TimeSpan time)
    {
        var ready = false;
        clock.Later(time, () => ready = true);
        WaitUntil(() => ready);
    }

    internal void TakeLock(PciDevice device) => WaitUntil(() => device.LockHolder is null);

    internal void Hazard(string what) => Hazards.Add(what);

    internal int TakeI2cNumber() => ++lastI2c;

    /// <summary>A dynamic major: another one with each load, so that nodes of yesterday lead nowhere.</summary>
    internal int TakeUvmMajor()
    {
        UvmMajor = nextUvmMajor--;
        return 0;
    }

    Folder ProgramFolder(string folder) => new(() => Programs.Keys.Where(path => path.StartsWith(folder, StringComparison.Ordinal))
        .Select(path => (path[folder.Length..], (Entry)new TextFile(static () => null))));

    Folder DevFolder(string folder) => new(() => Nodes.In(folder).Select(child =>
        (child.Name, child.Node is { } node ? (Entry)new NodeFile(node) : DevFolder($"{folder}/{child.Name}"))));
}
