using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>A container with a process that has copies of the host's nodes open.</summary>
public sealed class SimulatedContainer
{
    internal SimulatedContainer(Container name, string cgroup, string command, IReadOnlyList<string> nodes)
    {
        Name = name;
        Cgroup = cgroup;
        Command = command;
        Nodes = nodes;
    }

    public Container Name { get; }

    public SimulatedProcess? Process { get; internal set; }

    public bool IsRunning => Process is not null;

    /// <summary>Its config (/etc/pve/lxc/ID.conf): null where nobody wrote one for the test.</summary>
    public string? Config { get; set; }

    /// <summary>How long it takes to end by itself; its manager kills it when its own patience is over.</summary>
    public TimeSpan StopTakes { get; set; } = TimeSpan.FromSeconds(1);

    /// <summary>Its manager takes a stop for a wish and returns at once (Proxmox's HA).</summary>
    public bool IsStoppedByHa { get; set; }

    internal string Cgroup { get; }
    internal string Command { get; }
    internal IReadOnlyList<string> Nodes { get; }
}

/// <summary>Proxmox's containers, Docker's and Podman's, as their programs show them.</summary>
sealed class ContainerHosts(SimulatedKernel kernel)
{
    readonly List<SimulatedContainer> containers = [];

    public IReadOnlyList<SimulatedContainer> All => containers;

    /// <summary>/etc/pve/lxc</summary>
    public IEnumerable<(string, Entry)> Configs => containers.Where(container => container is { Name.Kind: ContainerKind.Lxc, Config: not null })
        .Select(container => ($"{container.Name.Id}.conf", (Entry)new TextFile(() => container.Config)));

    /// <summary>/sys/fs/cgroup/lxc: a folder for each one that runs.</summary>
    public IEnumerable<(string, Entry)> Groups => containers.Where(container => container is { Name.Kind: ContainerKind.Lxc, IsRunning: true })
        .Select(container => (container.Name.Id, (Entry)new Folder(static () => [])));

    public InstalledProgram Pct => new(arguments => arguments is ["status", _], arguments => arguments switch
    {
        ["status", var id] => Find(ContainerKind.Lxc, id) is { } container
            ? new(0, $"status: {(container.IsRunning ? "running" : "stopped")}")
            : new(2, $"Configuration file 'nodes/pve/lxc/{id}.conf' does not exist"),
        ["shutdown", var id, "--forceStop", "1", "--timeout", var patience] => Stop(ContainerKind.Lxc, id, patience),
        ["start", var id] => Start(ContainerKind.Lxc, id),
        _ => throw InstalledProgram.Untaught(Programs.Pct, arguments),
    });

    public InstalledProgram Engine(ContainerKind kind) => new(arguments => arguments is ["inspect", ..], arguments => arguments switch
    {
        ["inspect", "--format", "{{.State.Running}}", var id] => Find(kind, id) is { } container
            ? new(0, container.IsRunning ? "true" : "false")
            : new(1, $"Error: No such object: {id}"),
        ["stop", "-t", var patience, var id] => Stop(kind, id, patience),
        ["start", var id] => Start(kind, id),
        _ => throw InstalledProgram.Untaught(kind.ToString(), arguments),
    });

    /// <summary>A container that does not run yet.</summary>
    /// <param name="id">Of Docker and Podman all 64 digits.</param>
    public SimulatedContainer Add(ContainerKind kind, string id, string command, IReadOnlyList<string> nodes)
    {
        var (shown, cgroup) = kind switch
        {
            ContainerKind.Lxc => (id, $"/lxc/{id}/ns/system.slice/{command}.service"),
            ContainerKind.Docker => (id[..12], $"/system.slice/docker-{id}.scope"),
            _ => (id[..12], $"/machine.slice/libpod-{id}.scope/container"),
        };
        var container = new SimulatedContainer(new(kind, shown), cgroup, command, nodes);
        containers.Add(container);
        return container;
    }

    public void Start(SimulatedContainer container)
    {
        container.Process = kernel.StartProcess(container.Command, container.Cgroup);
        kernel.OpenWhatIsThere(container.Nodes, container.Process);
    }

    static IEnumerable<string> DevicesOf(SimulatedContainer container) => (container.Config ?? "").Split('\n')
        .Where(line => line.StartsWith("dev", StringComparison.Ordinal)).Select(line => line.Split(' ', 2)[1].Split(',')[0]);

    SimulatedContainer? Find(ContainerKind kind, string id) => containers.Find(container => container.Name == new Container(kind, id));

    /// <summary>All that is in its cgroup ends with it (kill(2) of its init ends a PID namespace, kernel/pid_namespace.c:zap_pid_ns_processes).</summary>
    static bool IsIn(SimulatedContainer container, SimulatedProcess process)
    {
        var root = container.Name.Kind == ContainerKind.Lxc ? $"/lxc/{container.Name.Id}" : container.Cgroup;
        return process.Cgroup == root || process.Cgroup.StartsWith($"{root}/", StringComparison.Ordinal);
    }

    ProgramResult Stop(ContainerKind kind, string id, string patience)
    {
        if (Find(kind, id) is not { Process: { } process } container)
            return new(1, $"{id} is not running");
        var killed = TimeSpan.FromSeconds(int.Parse(patience, CultureInfo.InvariantCulture));
        // The manager's worker does it: whoever ends the program that asked ends nothing of that.
        kernel.Later(container.IsStoppedByHa || container.StopTakes < killed ? container.StopTakes : killed, () =>
        {
            foreach (var inside in kernel.RunningProcesses.Where(other => other == process || IsIn(container, other)).ToList())
                kernel.EndProcess(inside);
            container.Process = null;
        });
        if (!container.IsStoppedByHa)
            kernel.WaitUntil(() => !container.IsRunning);
        return new(0, "");
    }

    ProgramResult Start(ContainerKind kind, string id)
    {
        if (Find(kind, id) is not { Process: null } container)
            return new(1, $"{id} is already running");
        // src/lxc-pve-prestart-hook: a devN that is not there is an error, before anything of the container runs.
        if (DevicesOf(container).FirstOrDefault(path => kernel.Nodes.Find(path) is null) is { } missing)
            return new(1, $"Device {missing} does not exist");
        Start(container);
        return new(0, "");
    }
}
