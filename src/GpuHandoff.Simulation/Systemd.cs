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
        (Type, KillMode, TriggeredBy) = WellKnown(name);
    }

    /// <summary>As the unit files have it, of Debian 12 and 13 and of the makers' own packages.</summary>
    static (string Type, string KillMode, string TriggeredBy) WellKnown(string name) => name switch
    {
        "anacron.service" => ("simple", "mixed", "anacron.timer"),
        "atd.service" => ("forking", "process", ""),
        "cron.service" => ("simple", "process", ""),
        "dbus.service" => ("notify", "none", "dbus.socket"),
        "docker.service" => ("notify", "process", "docker.socket"),
        "containerd.service" => ("notify", "process", ""),
        "incus.service" => ("notify", "process", "incus.socket"),
        "k3s.service" => ("notify", "process", ""),
        "libvirtd.service" => ("notify", "process", "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket"),
        "NetworkManager.service" => ("dbus", "process", ""),
        "slurmd.service" => ("notify", "process", ""),
        "ssh.service" => ("notify", "process", ""),
        "nvidia-persistenced.service" or "rc-local.service" => ("forking", "control-group", ""),
        _ => ("simple", "control-group", ""),
    };

    /// <summary>systemd.service(5), Type=</summary>
    public string Type { get; set; }

    /// <summary>systemd.kill(5), KillMode=: which of its processes a stop ends.</summary>
    public string KillMode { get; set; }

    /// <summary>The timers, paths and sockets that start it, with blanks between them.</summary>
    public string TriggeredBy { get; set; }

    /// <summary>The account that it runs as (User=).</summary>
    public uint User { get; set; }

    public string Name { get; }

    /// <summary>active, inactive, failed, deactivating.</summary>
    public string State { get; internal set; } = "inactive";

    public SimulatedProcess? Process { get; internal set; }

    /// <summary>How long it takes to stop.</summary>
    public TimeSpan StopTakes { get; set; } = TimeSpan.FromMilliseconds(300);

    /// <summary>How long it takes to start: systemctl waits for that, and PID 1 goes on where systemctl is ended.</summary>
    public TimeSpan StartTakes { get; set; }

    /// <summary>It cannot be started any more: its program is gone, its configuration is wrong.</summary>
    public bool IsBroken { get; set; }

    /// <summary>Even its main process stays when it is stopped (KillMode=none, or one that does not die).</summary>
    public bool LeavesItsProcess { get; set; }

    /// <summary>It was started too often: the next start is refused until it is forgiven (start-limit-hit).</summary>
    public void HitStartLimit() => Starts.AddRange(Enumerable.Repeat(TimeSpan.MaxValue, 5));

    /// <summary>BindsTo= of this one: it cannot be up without them, and goes down with them.</summary>
    public IList<string> BindsTo { get; } = [];

    /// <summary>What is installed into it (WantedBy= of theirs): a start pulls them in.</summary>
    public IList<string> Wants { get; } = [];

    /// <summary>ConditionPathExists= and the like: a start without it does nothing and is no error.</summary>
    public Func<bool> Condition { get; set; } = static () => true;

    /// <summary>What else it is known as: display-manager.service.</summary>
    public string? Alias { get; set; }

    /// <summary>More processes than its own, in other cgroups: a display manager's sessions.</summary>
    internal Func<SimulatedKernel, IReadOnlyList<SimulatedProcess>>? StartsToo { get; set; }

    internal IReadOnlyList<SimulatedProcess> Others { get; set; } = [];

    /// <summary>Who lets go of what he has open when it stops, and lives on.</summary>
    internal IReadOnlyList<SimulatedProcess> Closes { get; init; } = [];

    /// <summary>Made by systemd-run: gone when it is down.</summary>
    internal bool IsTransient { get; init; }

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

    public InstalledProgram Systemctl => new(arguments => arguments is ["show", ..] or ["is-system-running"], Run);

    public SimulatedUnit? Find(string name) => units.GetValueOrDefault(name) ?? units.Values.FirstOrDefault(unit => unit.Alias == name);

    public void Add(SimulatedUnit unit) => units.Add(unit.Name, unit);

    public void Remove(SimulatedUnit unit) => units.Remove(unit.Name);

    ProgramResult Run(IReadOnlyList<string> arguments) => arguments switch
    {
        // A unit that nobody knows is inactive (LoadState=not-found).
        ["show", "--property=ActiveState", "--value", "--", var unit] => new(0, Find(unit)?.State ?? "inactive"),
        ["show", { } properties, "--", ..] when properties.StartsWith("--property=Id,", StringComparison.Ordinal) =>
            new(0, Show(arguments.Skip(3), properties["--property=".Length..].Split(','))),
        // systemctl(1): 0 for "running" alone.
        ["is-system-running"] => kernel.SystemState is { } state
            ? new(state == "running" ? 0 : 1, state)
            : throw new NoAnswer(),
        ["stop", "--", var unit] => Stop(unit),
        ["start", "--", var unit] => Start(unit),
        ["start", "--job-mode=ignore-dependencies", "--", var unit] => Start(unit, alone: true),
        ["reset-failed", "--", var unit] => Forgive(unit),
        _ => throw InstalledProgram.Untaught(Programs.Systemctl, arguments),
    };

    string Show(IEnumerable<string> names, IReadOnlyList<string> properties) => string.Join("\n\n", names.Select(name => Show(name, properties)));

    /// <summary>systemctl show: one that nobody knows has a state all the same.</summary>
    string Show(string name, IEnumerable<string> properties) => string.Join('\n', properties.Select(property => $"{property}=" + property switch
    {
        "Id" => Find(name)?.Name ?? name,
        "ActiveState" => Find(name)?.State ?? "inactive",
        "MainPID" => $"{Find(name)?.Process?.Pid ?? 0}",
        "KillMode" => Find(name) is { LeavesItsProcess: true } ? "none" : Find(name)?.KillMode ?? "control-group",
        "Type" => Find(name)?.Type ?? "simple",
        "TriggeredBy" => Find(name)?.TriggeredBy ?? "",
        "BoundBy" => string.Join(' ', units.Values.Where(unit => unit.BindsTo.Contains(name)).Select(unit => unit.Name)),
        _ => "",
    }));

    public ProgramResult Stop(string name)
    {
        if (Find(name) is not { } unit)
            return new(5, $"Failed to stop {name}: Unit {name} not loaded.");
        if (unit.State == "active")
        {
            // One that is ordered after this one stops first (BindsTo= with After=).
            foreach (var bound in units.Values.Where(other => other.BindsTo.Contains(unit.Name) && other.State == "active").ToList())
                Stop(bound.Name);
            unit.State = "deactivating";
            kernel.Later(unit.StopTakes, () =>
            {
                foreach (var process in EndedWith(unit).ToList())
                    kernel.EndProcess(process);
                foreach (var other in unit.Others)
                    kernel.EndProcess(other);
                foreach (var file in unit.Closes.SelectMany(process => process.Open).ToList())
                    file.Dispose();
                unit.Process = null;
                unit.Others = [];
                unit.State = "inactive";
                if (unit.IsTransient)
                    units.Remove(unit.Name);
            });
        }
        kernel.WaitUntil(() => unit.State != "deactivating");
        return new(0, "");
    }

    /// <summary>systemd.kill(5): the main process, or all that is in the unit's cgroup.</summary>
    IEnumerable<SimulatedProcess> EndedWith(SimulatedUnit unit) => unit switch
    {
        { LeavesItsProcess: true } or { KillMode: "none" } => [],
        { KillMode: "process" } => unit.Process is { } main ? [main] : [],
        _ => kernel.RunningProcesses.Where(process => process == unit.Process
            || process.Cgroup == $"/system.slice/{unit.Name}" || process.Cgroup.StartsWith($"/system.slice/{unit.Name}/", StringComparison.Ordinal)),
    };

    public ProgramResult Start(string name, bool alone = false)
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
        // systemd, core/unit.c:unit_start: -ECOMM, and the job is done.
        if (!unit.Condition())
            return new(0, "");
        unit.Starts.Add(kernel.Uptime);
        if (unit.IsBroken || (unit.NeedsGpu && !kernel.Bus.Devices.Any(device => device.Driver == "nvidia")))
        {
            unit.State = "failed";
            return new(1, $"Job for {name} failed because the control process exited with error code.");
        }
        if (!alone && unit.BindsTo.Select(needed => Start(needed)).FirstOrDefault(result => result.Exit != 0) is { } failed)
            return failed;
        // core/unit.c:unit_verify_deps, bound to one that is not up.
        if (!alone && unit.BindsTo.Any(needed => Find(needed)?.State != "active"))
            return new(1, $"A dependency job for {name} failed. See 'journalctl -xe' for details.");
        if (unit.StartTakes > TimeSpan.Zero)
        {
            unit.State = "activating";
            kernel.Later(unit.StartTakes, () => Up(unit));
            kernel.WaitUntil(() => unit.State != "activating");
        }
        else
        {
            Up(unit);
        }
        if (!alone)
        {
            foreach (var wanted in unit.Wants)
                Start(wanted);
        }
        return new(0, "");
    }

    void Up(SimulatedUnit unit)
    {
        if (unit.Command.Length > 0)
        {
            unit.Process = kernel.StartProcess(unit.Command, $"/system.slice/{unit.Name}");
            unit.Process.User = unit.User;
            kernel.OpenWhatIsThere(unit.Nodes(kernel), unit.Process);
        }
        unit.Others = unit.StartsToo?.Invoke(kernel) ?? [];
        unit.State = "active";
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
