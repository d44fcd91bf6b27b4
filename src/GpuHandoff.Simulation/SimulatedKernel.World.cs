using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>The rest of the world, for tests: processes, guests and hardware that act on their own.</summary>
public sealed partial class SimulatedKernel
{
    /// <summary>A process; <paramref name="cgroup"/> as /proc/PID/cgroup has it after <c>0::</c>.</summary>
    public SimulatedProcess StartProcess(string name, string cgroup = "/user.slice/user-1000.slice/session-2.scope", int? pid = null) =>
        Processes.Start(name, cgroup, pid, (ulong)(Uptime.TotalSeconds * ClockTicks));

    const int ClockTicks = 100;

    /// <summary>Ends a process; what it held is closed first.</summary>
    public void EndProcess(SimulatedProcess process)
    {
        ArgumentNullException.ThrowIfNull(process);
        Processes.End(process);
        Bus.Settle();
    }

    /// <summary>Opens a node as open(2) does, with all that hangs on it; throws what open(2) would say.</summary>
    public OpenNode OpenNode(string path, SimulatedProcess process)
    {
        var node = Nodes.Find(path) ?? throw new KernelRefused($"open {path}", Errno.NoEntry, Errno.Say(Errno.NoEntry));
        return OpenNode(node, path, process);
    }

    /// <summary>Opens a device through another node of the same numbers: a container's own copy under its own path.</summary>
    public OpenNode OpenNode(DeviceNode node, string shownPath, SimulatedProcess process)
    {
        ArgumentNullException.ThrowIfNull(node);
        ArgumentNullException.ThrowIfNull(process);
        try
        {
            var release = Opening.Of(this, node);
            return process.Add(shownPath, node, () =>
            {
                release();
                Bus.Settle();
            });
        }
        catch (Refusal refusal)
        {
            throw new KernelRefused($"open {shownPath}", refusal.Errno, Say(refusal.Errno));
        }
    }

    /// <summary>open(2) with O_PATH, which needs no permission on the node and calls no driver (fs/open.c:do_dentry_open).</summary>
    public OpenNode OpenPathOnly(string path, SimulatedProcess process)
    {
        ArgumentNullException.ThrowIfNull(process);
        var node = Nodes.Find(path) ?? throw new KernelRefused($"open {path}", Errno.NoEntry, Errno.Say(Errno.NoEntry));
        return process.Add(path, node, static () => { }, onlyAPath: true);
    }

    /// <summary>A file below /proc/asound, mode 0444: an open one pins the card's module (sound/core/info.c:alloc_info_private).</summary>
    public OpenNode OpenSoundInfo(int card, SimulatedProcess process)
    {
        ArgumentNullException.ThrowIfNull(process);
        var module = Modules.Find("snd_hda_intel") ?? throw new KernelRefused("open /proc/asound", Errno.NoEntry, Errno.Say(Errno.NoEntry));
        module.Files++;
        return process.Add($"/proc/asound/card{card}/pcm3p/info", null, () => module.Files--);
    }

    /// <summary>A CUDA program registers a GPU through its open /dev/nvidia-uvm: a usage count that no node shows.</summary>
    public void RegisterWithUvm(OpenNode uvm, PciAddress gpu)
    {
        ArgumentNullException.ThrowIfNull(uvm);
        var device = Device(gpu);
        device.KernelUsers++;
        uvm.AlsoAtClose(() => device.KernelUsers--);
    }

    /// <summary>nvidia-smi -pm without the daemon: initialised, MSI on, but no usage count.</summary>
    public void SetLegacyPersistence(PciAddress gpu, bool on) => Device(gpu).Persistent = on;

    /// <summary>A service, inactive until <see cref="StartUnit"/>; its process opens those of the nodes that are there.</summary>
    public SimulatedUnit AddUnit(string name, string command, params IReadOnlyList<string> nodes)
    {
        var unit = new SimulatedUnit(name, command, _ => nodes, needsGpu: false);
        Systemd.Add(unit);
        return unit;
    }

    /// <summary>A process below a unit's main one: its work, or a job that it runs for a user (cron's, at's, slurm's).</summary>
    /// <param name="user">Whose; null: the unit's own account.</param>
    public SimulatedProcess StartBelow(SimulatedUnit unit, string name, uint? user, params IReadOnlyList<string> nodes)
    {
        ArgumentNullException.ThrowIfNull(unit);
        var process = StartProcess(name, $"/system.slice/{unit.Name}");
        process.User = user ?? unit.User;
        process.Parent = unit.Process?.Pid ?? 1;
        OpenWhatIsThere(nodes, process);
        return process;
    }

    /// <summary>A login's file (/run/systemd/sessions/ID), as logind keeps it.</summary>
    /// <param name="service">The PAM service that opened it.</param>
    public void Login(string id, uint user, string service, string type = "tty")
    {
        Files.Write($"/run/systemd/sessions/{id}", $"# This is private data. Do not parse.\nUID={user}\nACTIVE=1\nTYPE={type}\nCLASS=user\n"
            + $"SCOPE=session-{id}.scope\nSERVICE={service}\n");
        // Its pipe: a reader waits for the other end.
        Files.Write($"/run/systemd/sessions/{id}.ref", "");
    }

    /// <summary>A service that finds its GPU by address, whatever number the node has: inactive until <see cref="StartUnit"/>.</summary>
    public SimulatedUnit AddUnitOn(PciAddress gpu, string name, string command)
    {
        var unit = new SimulatedUnit(name, command, kernel => ["/dev/nvidiactl", $"/dev/nvidia{kernel.Bus.Find(gpu)?.Minor}"], needsGpu: false);
        Systemd.Add(unit);
        return unit;
    }

    /// <summary>nvidia-persistenced: it keeps every card open that is on nvidia when it starts, and needs one.</summary>
    public SimulatedUnit AddPersistenced()
    {
        var unit = new SimulatedUnit(
            "nvidia-persistenced.service", "nvidia-persiste",
            static kernel => ["/dev/nvidiactl", .. kernel.Bus.Devices.Where(device => device.Minor is not null).Select(device => $"/dev/nvidia{device.Minor}")],
            needsGpu: true);
        Systemd.Add(unit);
        return unit;
    }

    /// <summary>gpu-handoff-host@ADDRESS.target with its template, active from now on.</summary>
    public SimulatedUnit AddHostTarget(PciAddress gpu)
    {
        HasHostTarget = true;
        var target = new SimulatedUnit(HostTarget.UnitOf(gpu), "", static _ => [], needsGpu: false)
        {
            Condition = () => Bus.Find(gpu)?.Driver != "vfio-pci",
        };
        Systemd.Add(target);
        StartUnit(target);
        return target;
    }

    /// <summary>PID 1 does not answer: systemctl waits until it is killed, which costs its whole budget each time.</summary>
    public IDisposable HangSystemctl() => HangProgram(Kernel.Programs.Systemctl);

    /// <summary>A program waits for a daemon that does not answer, until it is killed; until disposed.</summary>
    public IDisposable HangProgram(string program)
    {
        var before = Programs[program];
        Programs[program] = before with { Run = static _ => throw new NoAnswer(), Talk = static (_, _, _) => throw new NoAnswer() };
        return new OpenNode(0, program, null, () => Programs[program] = before);
    }

    /// <summary>Every program that is installed waits for something that does not answer; until disposed.</summary>
    public IDisposable HangPrograms()
    {
        var hung = Programs.Keys.ToList().ConvertAll(HangProgram);
        return new OpenNode(0, "", null, () => hung.ForEach(program => program.Dispose()));
    }

    /// <summary>A unit with BindsTo= and WantedBy= of a target; down until it is started.</summary>
    public SimulatedUnit AddBoundUnit(SimulatedUnit target, string name, string command, params IReadOnlyList<string> nodes)
    {
        ArgumentNullException.ThrowIfNull(target);
        var unit = AddUnit(name, command, nodes);
        unit.BindsTo.Add(target.Name);
        target.Wants.Add(name);
        return unit;
    }

    /// <summary>
    /// gdm, and a session on the card: X in the session's scope, and logind with a copy of its DRM node, which PID 1 keeps, too
    /// (logind-session-device.c). Down until it is started.
    /// </summary>
    public SimulatedUnit AddDisplayManager()
    {
        var logind = StartProcess("systemd-logind", "/system.slice/systemd-logind.service");
        var init = StartProcess("systemd", "/init.scope", pid: 1);
        var unit = new SimulatedUnit("gdm.service", "gdm", static _ => [], needsGpu: false)
        {
            Alias = "display-manager.service",
            StartsToo = kernel =>
            {
                kernel.Login("2", 1000, "gdm-password", "x11");
                var server = kernel.StartProcess("Xorg");
                kernel.OpenWhatIsThere(["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-modeset", "/dev/dri/card0"], server);
                var shell = kernel.StartProcess("gnome-shell", "/user.slice/user-1000.slice/user@1000.service/session.slice/org.gnome.Shell@x11.service");
                kernel.OpenWhatIsThere(["/dev/nvidiactl", "/dev/nvidia0"], shell);
                kernel.OpenWhatIsThere(["/dev/dri/card0"], logind);
                kernel.OpenWhatIsThere(["/dev/dri/card0"], init);
                return [server, shell];
            },
            Closes = [logind, init],
        };
        Systemd.Add(unit);
        return unit;
    }

    /// <summary>A control daemon of CUDA MPS outside of any unit, with a server that has the first card open.</summary>
    public void StartMps(string pipes = MpsDaemon.DefaultPipes, uint user = 0, params IReadOnlyList<string> nodes) =>
        Mps.Start(pipes, user, nodes is [] ? ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"] : nodes, "/system.slice/rc-local.service");

    /// <summary>A control daemon in a unit or a container, with a server that has these nodes open.</summary>
    /// <param name="isApart">In namespaces of its own: its pipes are none of the host's, whatever they are called.</param>
    /// <returns>The daemon, and its server.</returns>
    public IReadOnlyList<SimulatedProcess> StartMpsIn(string cgroup, bool isApart, params IReadOnlyList<string> nodes) =>
        Mps.Start(MpsDaemon.DefaultPipes, user: 0, nodes, cgroup, isApart);

    /// <summary>A program that works through MPS: it has the card open as any other, and the server waits for it.</summary>
    public SimulatedProcess StartMpsClient(string pipes = MpsDaemon.DefaultPipes) => Mps.StartClient(pipes);

    public SimulatedUnit Unit(string name) => Systemd.Find(name) ?? throw new InvalidOperationException($"there is no {name} on this machine");

    /// <summary>Somebody else's systemctl start.</summary>
    public void StartUnit(SimulatedUnit unit)
    {
        ArgumentNullException.ThrowIfNull(unit);
        if (Systemd.Start(unit.Name) is { Exit: not 0 } refused)
            throw new InvalidOperationException(refused.Output);
    }

    /// <summary>Somebody else's systemctl stop.</summary>
    public void StopUnit(SimulatedUnit unit)
    {
        ArgumentNullException.ThrowIfNull(unit);
        Elsewhere(kernel => kernel.RunProgram(Kernel.Programs.Systemctl, ["stop", "--", unit.Name], TimeSpan.FromSeconds(100)));
    }

    /// <summary>A container, stopped until it is started; its manager is installed with it.</summary>
    public SimulatedContainer AddContainer(ContainerKind kind, string id, string command, params IReadOnlyList<string> nodes)
    {
        var (program, manager) = kind switch
        {
            ContainerKind.Lxc => (Kernel.Programs.Pct, Containers.Pct),
            ContainerKind.Docker => (Kernel.Programs.Docker, Containers.Engine(kind)),
            _ => (Kernel.Programs.Podman, Containers.Engine(kind)),
        };
        Programs[program] = manager;
        return Containers.Add(kind, id, command, nodes);
    }

    public SimulatedContainer Container(string id) =>
        Containers.All.First(container => container.Name.Id == id);

    public void StartContainer(SimulatedContainer container)
    {
        ArgumentNullException.ThrowIfNull(container);
        Containers.Start(container);
    }

    /// <summary>/usr/bin/nvidia-smi.</summary>
    /// <param name="drains">Whether the driver lets cards be drained.</param>
    public void InstallNvidiaSmi(bool drains = true) => Programs[Kernel.Programs.NvidiaSmi] = new NvidiaSmi(this, drains).Program;

    /// <summary>A program that is only ever asked one thing, and always says the same.</summary>
    public void Install(string program, string says) => Programs[program] = new(static _ => true, _ => new(0, says));

    /// <summary>A program that is not installed after all.</summary>
    public void Forget(string program) => Programs.Remove(program);

    /// <summary>The process that the tool itself is, where that matters.</summary>
    public SimulatedProcess? Ourselves { get; set; }

    internal void OpenWhatIsThere(IEnumerable<string> nodes, SimulatedProcess process)
    {
        foreach (var node in nodes)
        {
            try
            {
                OpenNode(node, process);
            }
            catch (KernelRefused)
            {
                // No such node or no such card now: the program does without.
            }
        }
    }

    /// <summary>A user that no process shows (a dma-buf, p2p), until disposed: it holds the GPU and the module.</summary>
    public IDisposable UseInKernel(PciAddress gpu)
    {
        var device = Device(gpu);
        var module = Modules.Find("nvidia") ?? throw new InvalidOperationException("nvidia is not loaded");
        device.KernelUsers++;
        module.Files++;
        return new OpenNode(0, "kernel", null, () =>
        {
            device.KernelUsers--;
            module.Files--;
            Bus.Settle();
        });
    }

    /// <summary>Starts a VM with functions that are on vfio-pci; throws where a group is not viable or taken.</summary>
    /// <param name="cgroup">Null: as Proxmox has it.</param>
    public SimulatedVm StartVm(string name, IReadOnlyList<PciAddress> functions, string? cgroup = null) => Guests.Start(name, functions, cgroup);

    public void StopVm(SimulatedVm vm)
    {
        ArgumentNullException.ThrowIfNull(vm);
        EndProcess(vm.Process);
    }

    /// <summary>
    /// QEMU has left /proc, and vfio is still at its devices: the last close resets them (vfio_pci_core.c:vfio_pci_core_disable).
    /// </summary>
    public void StopVm(SimulatedVm vm, TimeSpan teardown)
    {
        ArgumentNullException.ThrowIfNull(vm);
        Processes.Vanish(vm.Process);
        Later(teardown, () => EndProcess(vm.Process));
    }

    /// <summary>Something that happens while the caller waits.</summary>
    public void Later(TimeSpan after, Action action) => clock.Later(after, action);

    /// <summary>The module is on its way out for so long, and stays after all: somebody's call that is under way.</summary>
    public void Dawdle(string module, TimeSpan time)
    {
        if (Modules.Find(module) is not { } found)
            return;
        found.State = "going";
        Later(time, () => found.State = "live");
    }

    /// <summary>Probing this function with this driver fails from now on, or so many times; 0 heals it.</summary>
    public void FailProbe(string driver, PciAddress function, int errno, int times = int.MaxValue)
    {
        if (errno == 0)
            ProbeFaults.Remove((driver, function));
        else
            ProbeFaults[(driver, function)] = new(errno, times, null);
    }

    /// <summary>Probing this function with this driver fails until it was reset in this way: <c>flr</c>, <c>subordinate</c>, <c>rescan</c>.</summary>
    public void FailProbeUntil(string reset, string driver, PciAddress function, int errno) =>
        ProbeFaults[(driver, function)] = new(errno, int.MaxValue, reset);

    /// <summary>What a reset, of any kind, does to a function besides: called with its address and the way, after it.</summary>
    public Action<PciAddress, string>? WhenReset { get; set; }

    internal void HasBeenReset(PciDevice device, string how)
    {
        ResetLog.Add($"{device.Address} {how}");
        foreach (var key in ProbeFaults.Where(fault => fault.Key.Device == device.Address && fault.Value.Until == how).Select(fault => fault.Key).ToList())
            ProbeFaults.Remove(key);
        WhenReset?.Invoke(device.Address, how);
    }

    /// <summary>A memory window shows another size from now on; 0: it found no place.</summary>
    public void ShrinkBar(PciAddress function, int bar, ulong size) => Device(function).Resize(bar, size);

    /// <summary>The next enumeration gives a memory window another size; 0: it finds no place.</summary>
    public void ShrinkBarAtRescan(PciAddress function, int bar, ulong size) => SizesAtRescan[(function, bar)] = size;

    /// <summary>The function falls off the bus: its registers read as ones, no probe works, no rescan finds it.</summary>
    public void LoseDevice(PciAddress function)
    {
        LostHardware.Add(function);
        Device(function).Lost = true;
    }

    /// <summary>The vtconsoles' bind files take every write and do nothing.</summary>
    public void MakeConsolesDeaf(bool deaf = true) => Consoles.Deaf = deaf;

    /// <summary>fbcon gets another number with each of its comings.</summary>
    public void MoveConsoleNumbers() => Consoles.NumbersMove = true;

    /// <summary>An old kernel: fbcon holds the module whose frame buffer it is on.</summary>
    public void LetFbconHoldModules() => Consoles.FbconHoldsModules = true;

    /// <summary>How often the visible terminal was drawn anew by hand.</summary>
    public int Redraws => Consoles.Redraws;

    /// <summary>Nothing is plugged in any more: drivers make no frame buffer (drm_fb_helper.c waits for a connector).</summary>
    public void UnplugMonitors() => Drm.HasMonitors = false;

    /// <summary>Somebody evicts the firmware's picture for good.</summary>
    public void LoseFirmwarePicture()
    {
        if (Consoles.Firmware is { } picture)
            Consoles.EvictFirmware(picture.Device);
    }

    /// <summary>Another screen comes: a frame buffer of the first bridge's, whatever that may be.</summary>
    public void ShowSomethingElsewhere() => Consoles.Add("udldrmfb", Bus.Devices.First(), "udl");

    /// <summary>How many IDs a driver was given by new_id.</summary>
    public int DynamicIdsOf(string driver) => Bus.Drivers.First(d => d.Name == driver).DynamicIds.Count;

    /// <summary>Nobody but root sees addresses in /proc/iomem.</summary>
    public bool HidesMemory { get; set; }

    /// <summary>What others do and look at is neither numbered nor disturbed.</summary>
    internal void Unseen(Action act)
    {
        var was = quiet;
        quiet = true;
        try
        {
            act();
        }
        finally
        {
            quiet = was;
        }
    }

    /// <summary>Somebody else's modprobe, rmmod or write: not numbered, not among <see cref="Calls"/>.</summary>
    public void Elsewhere(Action<IKernel> act)
    {
        ArgumentNullException.ThrowIfNull(act);
        act(new Bystander(this));
    }

    /// <summary>A function as the kernel knows it now.</summary>
    public PciDevice Device(PciAddress address) =>
        Bus.Find(address) ?? throw new InvalidOperationException($"there is no {address} on this machine");

    /// <summary>The function at an address in text: <c>0000:01:00.0</c>.</summary>
    public PciDevice Device(string address) =>
        Bus.Find(address) ?? throw new InvalidOperationException($"there is no {address} on this machine");

    /// <summary>The kernel's door without the bookkeeping.</summary>
    sealed class Bystander(SimulatedKernel kernel) : IKernel
    {
        public TimeSpan Uptime => kernel.Uptime;
        public string? Read(SysPath file) => kernel.Read(file);
        public string? ReadSlow(SysPath file, TimeSpan budget) => kernel.ReadSlow(file, budget);
        public byte[]? ReadBytes(SysPath file, int count) => kernel.ReadBytes(file, count);
        public IReadOnlyList<string> List(SysPath folder) => kernel.List(folder);
        public string? Link(SysPath link) => kernel.Link(link);
        public bool Exists(SysPath path) => kernel.Exists(path);
        public FileIdentity? IdentityOf(SysPath path) => kernel.IdentityOf(path);
        public DeviceNode? NodeAt(SysPath path) => kernel.NodeAt(path);
        public FileStatus? StatusOf(SysPath path) => kernel.StatusOf(path);
        public bool CanLoad(string module) => kernel.CanLoad(module);
        public void Pause(TimeSpan time) => kernel.Pause(time);
        public void Write(SysPath file, string text, TimeSpan budget, LastLook? look = null) => Quietly(() => kernel.Write(file, text, budget, look));
        public void UnloadModule(string module, TimeSpan budget) => Quietly(() => kernel.UnloadModule(module, budget));
        public void MakeNode(SysPath path, DeviceNode node) => Quietly(() => kernel.MakeNode(path, node));
        public void RemoveNode(SysPath path) => Quietly(() => kernel.RemoveNode(path));
        public void MakeFolder(SysPath folder) => Quietly(() => kernel.MakeFolder(folder));
        public void RemoveFolder(SysPath folder) => Quietly(() => kernel.RemoveFolder(folder));
        public void MakeLink(SysPath link, string target) => Quietly(() => kernel.MakeLink(link, target));
        public void RemoveLink(SysPath link) => Quietly(() => kernel.RemoveLink(link));

        public string Converse(SysPath socket, string text, Func<string, bool> isAll, TimeSpan budget) => kernel.Converse(socket, text, isAll, budget);

        public void SetAffinity(int thread, IReadOnlyList<int> processors) => Quietly(() => kernel.SetAffinity(thread, processors));

        public void Signal(int pid, ulong startedAt, ProcessSignal signal) => Quietly(() => kernel.Signal(pid, startedAt, signal));

        public ProgramResult RunProgram(
            string program, IReadOnlyList<string> arguments, TimeSpan budget, string input = "", IReadOnlyList<string>? environment = null)
        {
            var result = new ProgramResult(0, "");
            Quietly(() => result = kernel.RunProgram(program, arguments, budget, input, environment));
            return result;
        }

        public void LoadModule(string module, IReadOnlyList<string> parameters, TimeSpan budget) =>
            Quietly(() => kernel.LoadModule(module, parameters, budget));

        void Quietly(Action act) => kernel.Unseen(act);
    }
}
