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
    }

    public int Pid { get; }
    public string Name { get; }

    /// <summary>The path in /proc/PID/cgroup, after <c>0::</c>.</summary>
    public string Cgroup { get; }

    public IReadOnlyList<OpenNode> Open => open;

    /// <summary>When it began, in clock ticks since boot.</summary>
    public ulong Started { get; init; }

    public int Parent { get; set; } = 1;

    /// <summary>It has a handler for SIGTERM that does nothing.</summary>
    public bool IgnoresTerminate { get; set; }

    /// <summary>How long it takes to end after SIGTERM.</summary>
    public TimeSpan EndTakes { get; set; }

    /// <summary>It is in a call that cannot be interrupted (state D).</summary>
    public bool IsUninterruptible { get; set; }

    internal OpenNode Add(string path, DeviceNode? node, Action release)
    {
        // 0, 1 and 2 are its standard files.
        var number = Enumerable.Range(3, 1024).First(free => open.TrueForAll(file => file.Number != free));
        var file = new OpenNode(number, path, node, release);
        file.Closed += () => open.Remove(file);
        open.Add(file);
        return file;
    }
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

    public SimulatedProcess Start(string name, string cgroup)
    {
        var process = new SimulatedProcess(++lastPid, name, cgroup) { Started = (ulong)lastPid * 10 };
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
}
