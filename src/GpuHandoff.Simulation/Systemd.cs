using GpuHandoff.Kernel;

namespace GpuHandoff.Simulation;

/// <summary>A service of systemd: while it is active its process has nodes open.</summary>
public sealed class SimulatedUnit
{
    internal SimulatedUnit(string name, string command, Func<SimulatedKernel, IReadOnlyList<string>> nodes, bool needsGpu)
    {
        Name = name;
        Command = command;
        Nodes = nodes;
        NeedsGpu = needsGpu;
    }

    public string Name { get; }

    /// <summary>active, inactive, failed, deactivating.</summary>
    public string State { get; internal set; } = "inactive";

    public SimulatedProcess? Process { get; internal set; }

    /// <summary>How long it takes to stop.</summary>
    public TimeSpan StopTakes { get; set; } = TimeSpan.FromMilliseconds(300);

    /// <summary>It cannot be started any more: its program is gone, its configuration is wrong.</summary>
    public bool IsBroken { get; set; }

    /// <summary>KillMode=process: its process stays when it is stopped.</summary>
    public bool LeavesItsProcess { get; set; }

    /// <summary>It was started too often: the next start is refused until it is forgiven (start-limit-hit).</summary>
    public void HitStartLimit() => Starts.AddRange(Enumerable.Repeat(TimeSpan.MaxValue, 5));

    internal string Command { get; }
    internal Func<SimulatedKernel, IReadOnlyList<string>> Nodes { get; }

    /// <summary>nvidia-persistenced ends with an error where no card is on nvidia.</summary>
    internal bool NeedsGpu { get; }

    internal List<TimeSpan> Starts { get; } = [];
}

/// <summary>PID 1 as systemctl shows it (systemd, core/job.c, core/unit.c).</summary>
sealed class Systemd(SimulatedKernel kernel)
{
    // systemd-system.conf(5): DefaultStartLimitBurst and DefaultStartLimitIntervalSec.
    const int Burst = 5;
    static readonly TimeSpan Interval = TimeSpan.FromSeconds(10);

    readonly SortedDictionary<string, SimulatedUnit> units = new(StringComparer.Ordinal);

    public IEnumerable<SimulatedUnit> Units => units.Values;

    public InstalledProgram Systemctl => new(arguments => arguments is ["show", ..], Run);

    public SimulatedUnit? Find(string name) => units.GetValueOrDefault(name);

    public void Add(SimulatedUnit unit) => units.Add(unit.Name, unit);

    ProgramResult Run(IReadOnlyList<string> arguments) => arguments switch
    {
        // A unit that nobody knows is inactive (LoadState=not-found).
        ["show", "--property=ActiveState", "--value", "--", var unit] => new(0, Find(unit)?.State ?? "inactive"),
        ["stop", "--", var unit] => Stop(unit),
        ["start", "--", var unit] => Start(unit),
        ["reset-failed", "--", var unit] => Forgive(unit),
        _ => throw InstalledProgram.Untaught(Programs.Systemctl, arguments),
    };

    ProgramResult Stop(string name)
    {
        if (Find(name) is not { } unit)
            return new(5, $"Failed to stop {name}: Unit {name} not loaded.");
        if (unit.State == "active")
        {
            unit.State = "deactivating";
            kernel.Later(unit.StopTakes, () =>
            {
                if (unit is { Process: { } process, LeavesItsProcess: false })
                    kernel.EndProcess(process);
                unit.Process = null;
                unit.State = "inactive";
            });
        }
        kernel.WaitUntil(() => unit.State != "deactivating");
        return new(0, "");
    }

    public ProgramResult Start(string name)
    {
        if (Find(name) is not { } unit)
            return new(5, $"Failed to start {name}: Unit {name} not found.");
        // A start job waits for the stop job before it.
        kernel.WaitUntil(() => unit.State != "deactivating");
        if (unit.State == "active")
            return new(0, "");
        if (unit.Starts.Count(start => start > kernel.Uptime - Interval) >= Burst)
        {
            unit.State = "failed";
            return new(1, $"Job for {name} failed.\n{name}: Start request repeated too quickly.");
        }
        unit.Starts.Add(kernel.Uptime);
        if (unit.IsBroken || (unit.NeedsGpu && !kernel.Bus.Devices.Any(device => device.Driver == "nvidia")))
        {
            unit.State = "failed";
            return new(1, $"Job for {name} failed because the control process exited with error code.");
        }
        unit.Process = kernel.StartProcess(unit.Command, $"/system.slice/{name}");
        kernel.OpenWhatIsThere(unit.Nodes(kernel), unit.Process);
        unit.State = "active";
        return new(0, "");
    }

    ProgramResult Forgive(string name)
    {
        if (Find(name) is not { } unit)
            return new(1, $"Failed to reset failed state of unit {name}: Unit {name} not loaded.");
        unit.Starts.Clear();
        if (unit.State == "failed")
            unit.State = "inactive";
        return new(0, "");
    }
}
