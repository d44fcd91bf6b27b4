using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>A process that holds device nodes open, as /proc/PID shows it.</summary>
public sealed class SimulatedProcess
{
    readonly List<OpenNode> open = [];

    internal SimulatedProcess(int pid, string name, string cgroup)
    {
        Pid = pid;
        Name = name;
        Cgroup = cgroup;
        CommandLine = [name];
        Exe = ProgramOf(name);
        Threads = [new(pid, name)];
        User = cgroup.StartsWith("/user.slice/", StringComparison.Ordinal) ? 1000u : 0;
    }

    // What is known by this name on a host. One that only calls itself so has its Exe set by the test.
    static string ProgramOf(string name) => name switch
    {
        "kvm" => "/usr/bin/qemu-system-x86_64",
        "Xorg" => "/usr/lib/xorg/Xorg",
        MpsDaemon.Comm => "/usr/bin/nvidia-cuda-mps-server",
        "systemd" or "systemd-logind" => $"/usr/lib/systemd/{name}",
        _ when name.StartsWith("qemu-system", StringComparison.Ordinal) => "/usr/bin/qemu-system-x86_64",
        _ => $"/usr/bin/{name}",
    };

    public int Pid { get; }
    public string Name { get; }

    /// <summary>The path in /proc/PID/cgroup, after <c>0::</c>.</summary>
    public string Cgroup { get; }

    public IReadOnlyList<OpenNode> Open => open;

    /// <summary>/proc/PID/task; the first one has the process's own number.</summary>
    public IList<SimulatedThread> Threads { get; }

    public IReadOnlyList<string> CommandLine { get; set; }

    /// <summary>What /proc/PID/exe leads to; null: its memory is gone already (fs/proc/base.c:proc_exe_link).</summary>
    public string? Exe { get; set; }

    /// <summary>/proc/PID/environ</summary>
    public IReadOnlyList<string> Environment { get; set; } = [];

    /// <summary>Its user's number on the host: an unprivileged container's begin at 100000.</summary>
    public uint User { get; set; }

    /// <summary>It ends at this moment: its status cannot be read any more.</summary>
    public bool HasNoStatus { get; set; }

    /// <summary>What /proc/PID/ns/pid reads as: a container has its own.</summary>
    public string PidNamespace { get; set; } = HostPidNamespace;

    /// <summary>What /proc/PID/ns/mnt reads as: so has a container, and a unit with PrivateTmp=.</summary>
    public string MountNamespace { get; set; } = HostMountNamespace;

    /// <summary>In clock ticks since boot (/proc/PID/stat, field 22).</summary>
    public ulong Started { get; internal set; }

    internal const string HostPidNamespace = "pid:[4026531836]";

    internal const string HostMountNamespace = "mnt:[4026531841]";

    public int Parent { get; set; } = 1;

    /// <summary>It has a handler for SIGTERM that does nothing.</summary>
    public bool IgnoresTerminate { get; set; }

    /// <summary>How long it takes to end after SIGTERM.</summary>
    public TimeSpan EndTakes { get; set; }

    /// <summary>A look at its descriptors or mappings does not end: it holds its memory lock for ever.</summary>
    public bool IsUnreadable { get; set; }

    /// <summary>It is in a call that cannot be interrupted (state D).</summary>
    public bool IsUninterruptible { get; set; }

    internal OpenNode Add(string path, DeviceNode? node, Action release, bool onlyAPath = false)
    {
        // 0, 1 and 2 are its standard files.
        var number = Enumerable.Range(3, 1024).First(free => open.TrueForAll(file => file.Number != free));
        var file = new OpenNode(number, path, node, release) { IsOnlyAPath = onlyAPath };
        file.Closed += () => open.Remove(file);
        open.Add(file);
        return file;
    }
}

/// <summary>A thread, and where it may run: everywhere, until somebody says otherwise.</summary>
public sealed class SimulatedThread(int id, string name)
{
    public int Id { get; } = id;

    public string Name { get; } = name;

    public IReadOnlyList<int>? Processors { get; set; }
}

/// <summary>An open file: closing it (dispose) gives back what opening it took.</summary>
public sealed class OpenNode : IDisposable
{
    Action? release;

    internal OpenNode(int number, string path, DeviceNode? node, Action release)
    {
        Number = number;
        Path = path;
        Node = node;
        this.release = release;
    }

    public int Number { get; }

    /// <summary>What /proc/PID/fd/N reads as: a container's path, where the process lives in one.</summary>
    public string Path { get; }

    public DeviceNode? Node { get; }

    /// <summary>Opened with O_PATH: a descriptor that holds nothing.</summary>
    public bool IsOnlyAPath { get; internal init; }

    /// <summary>The thread that has it in a descriptor table of its own (clone without CLONE_FILES); null: the process's table has it.</summary>
    public int? Thread { get; private set; }

    /// <summary>The descriptor moves into the table of one thread, and leaves the process's.</summary>
    public void KeepInThread(SimulatedThread thread)
    {
        ArgumentNullException.ThrowIfNull(thread);
        Thread = thread.Id;
    }

    /// <summary>How many descriptors of the table lead to it (dup(2)): the kernel counts the open file once.</summary>
    public int Descriptors { get; private set; } = 1;

    public void Duplicate() => Descriptors++;

    /// <summary>The descriptor is in no table: on its way through a socket, or kept by io_uring.</summary>
    public bool IsInFlight { get; private set; }

    public void PutInFlight() => IsInFlight = true;

    /// <summary>The descriptor is closed, and a mapping keeps the file open (mm/mmap.c: vm_file).</summary>
    public bool IsOnlyMapped { get; private set; }

    /// <summary>mmap(2) and close(2): from now on only /proc/PID/maps shows it.</summary>
    public void KeepOnlyItsMapping() => IsOnlyMapped = true;

    internal event Action? Closed;

    /// <summary>Gives something more back at close: a GPU registered through an open /dev/nvidia-uvm.</summary>
    internal void AlsoAtClose(Action action) => release += action;

    public void Dispose()
    {
        var now = release;
        release = null;
        if (now is null)
            return;
        Closed?.Invoke();
        now();
    }
}

sealed class Processes
{
    readonly SortedDictionary<int, SimulatedProcess> running = [];
    int lastPid = 4210;

    public IEnumerable<SimulatedProcess> Running => running.Values;

    /// <summary>The number of a process that has come and gone.</summary>
    public int Passing() => ++lastPid;

    public SimulatedProcess Start(string name, string cgroup, int? pid, ulong started)
    {
        var process = new SimulatedProcess(pid ?? ++lastPid, name, cgroup) { Started = started };
        running.Add(process.Pid, process);
        return process;
    }

    public static void Signal(SimulatedProcess process, ProcessSignal signal, SimulatedKernel kernel)
    {
        if (process.IsUninterruptible || (signal == ProcessSignal.Terminate && process.IgnoresTerminate))
            return;
        if (signal == ProcessSignal.Terminate && process.EndTakes > TimeSpan.Zero)
            kernel.Later(process.EndTakes, () => kernel.EndProcess(process));
        else
            kernel.EndProcess(process);
    }

    public void End(SimulatedProcess process)
    {
        // A process leaves /proc after its files are closed (kernel/exit.c:exit_files before release_task).
        foreach (var file in process.Open.ToList())
            file.Dispose();
        running.Remove(process.Pid);
    }

    /// <summary>It leaves /proc, and its files are closed by whoever had a copy: the caller.</summary>
    public void Vanish(SimulatedProcess process) => running.Remove(process.Pid);
}
