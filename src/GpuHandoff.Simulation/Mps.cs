using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>CUDA MPS: a control daemon without a card, its server with one, and clients that the server waits for.</summary>
sealed class Mps(SimulatedKernel kernel)
{
    readonly List<Daemon> daemons = [];

    sealed record Daemon(string Pipes, IReadOnlyList<string> Nodes, SimulatedProcess Control, SimulatedProcess Server)
    {
        public List<SimulatedProcess> Clients { get; } = [];
    }

    /// <summary>Those that a client on the host finds.</summary>
    IEnumerable<Daemon> OnTheHost => Running.Where(daemon => daemon.Control.MountNamespace == SimulatedProcess.HostMountNamespace);

    IEnumerable<Daemon> Running => daemons.Where(daemon => kernel.Processes.Running.Contains(daemon.Control));

    /// <summary>Each one that runs: its pipes, its user, and whether it has its server.</summary>
    public IEnumerable<string> Daemons => Running.Select(daemon =>
        $"{daemon.Pipes} user={daemon.Control.User} server={kernel.Processes.Running.Contains(daemon.Server)} {string.Join(' ', daemon.Control.Environment)}");

    public IReadOnlyList<SimulatedProcess> Start(string pipes, uint user, IReadOnlyList<string> nodes, string cgroup, bool isApart = false)
    {
        kernel.Programs[Programs.SetPriv] = new(static _ => false, static arguments => throw InstalledProgram.Untaught(Programs.SetPriv, arguments))
        {
            Talk = Talk,
        };
        kernel.Programs[Programs.SystemdRun] = new(static _ => false, RunTransient);
        string[] environment = pipes == MpsDaemon.DefaultPipes ? ["PATH=/usr/bin"] : ["PATH=/usr/bin", $"{MpsDaemon.PipesName}={pipes}"];
        var daemon = Begin(pipes, user, nodes, cgroup, environment);
        foreach (var process in (SimulatedProcess[])(isApart ? [daemon.Control, daemon.Server] : []))
            (process.PidNamespace, process.MountNamespace) = ("pid:[4026532201]", "mnt:[4026532199]");
        return [daemon.Control, daemon.Server];
    }

    public SimulatedProcess StartClient(string pipes)
    {
        var daemon = OnTheHost.First(daemon => daemon.Pipes == pipes);
        var client = kernel.StartProcess("python3");
        kernel.OpenWhatIsThere(daemon.Nodes, client);
        daemon.Clients.Add(client);
        return client;
    }

    Daemon Begin(string pipes, uint user, IReadOnlyList<string> nodes, string cgroup, IReadOnlyList<string> environment)
    {
        var control = kernel.StartProcess(MpsDaemon.Comm, cgroup);
        (control.CommandLine, control.Exe, control.User, control.Environment) =
            (["nvidia-cuda-mps-control", "-d"], Programs.MpsControl, user, environment);
        // The server comes with the first client; here one comes at once.
        var server = kernel.StartProcess(MpsDaemon.Comm, cgroup);
        (server.CommandLine, server.User, server.Environment, server.Parent) = (["nvidia-cuda-mps-server"], user, environment, control.Pid);
        kernel.OpenWhatIsThere(nodes, server);
        var daemon = new Daemon(pipes, nodes, control, server);
        daemons.Add(daemon);
        return daemon;
    }

    // setpriv --reuid N --regid N --clear-groups -- nvidia-cuda-mps-control
    // nvidia-cuda-mps-control(1): commands on stdin, the daemon found by its pipe directory.
    ProgramResult Talk(IReadOnlyList<string> arguments, string word, IReadOnlyList<string> environment)
    {
        if (arguments is not ["--reuid", var user, "--regid", _, "--clear-groups", "--", Programs.MpsControl])
            throw InstalledProgram.Untaught(Programs.SetPriv, arguments);
        var pipes = environment.Select(entry => entry.Split('=', 2)).FirstOrDefault(entry => entry[0] == MpsDaemon.PipesName)?[1] ?? MpsDaemon.DefaultPipes;
        if (OnTheHost.FirstOrDefault(daemon => daemon.Pipes == pipes) is not { } daemon)
            return new(1, $"Cannot find MPS control daemon process");
        // Its own user's only: root in a folder that somebody else names is what must not be.
        if (uint.Parse(user) != daemon.Control.User)
            throw InstalledProgram.Untaught(Programs.SetPriv, arguments);
        var clients = daemon.Clients.Where(kernel.Processes.Running.Contains).ToList();
        switch (word.Split(' '))
        {
            case ["get_client_list", _]:
                return new(0, string.Join('\n', clients.Select(client => client.Pid)));
            case ["quit"]:
                // It waits for its clients, and does not answer meanwhile.
                kernel.WaitUntil(() => clients.TrueForAll(client => !kernel.Processes.Running.Contains(client)));
                kernel.EndProcess(daemon.Server);
                kernel.EndProcess(daemon.Control);
                return new(0, "");
            default:
                throw InstalledProgram.Untaught(Programs.MpsControl, [word]);
        }
    }

    // systemd-run --unit=NAME --property=Type=forking --uid=N --gid=N --setenv=NAME=VALUE -- PROGRAM ARGUMENTS
    ProgramResult RunTransient(IReadOnlyList<string> arguments)
    {
        if (arguments is not [.., "--", Programs.MpsControl, "-d"] || !arguments.Contains("--collect"))
            throw InstalledProgram.Untaught(Programs.SystemdRun, arguments);
        string[] Of(string option) => [.. arguments.Where(word => word.StartsWith($"--{option}=", StringComparison.Ordinal)).Select(word => word[(option.Length + 3)..])];
        var environment = Of("setenv");
        var pipes = environment.Select(entry => entry.Split('=', 2)).FirstOrDefault(entry => entry[0] == MpsDaemon.PipesName)?[1] ?? MpsDaemon.DefaultPipes;
        if (OnTheHost.Any(daemon => daemon.Pipes == pipes))
            return new(1, "An instance of this daemon is already running");
        bool IsIt(Daemon daemon) => daemon.Pipes == pipes && daemon.Control.MountNamespace == SimulatedProcess.HostMountNamespace;
        var nodes = daemons.Find(IsIt)?.Nodes ?? [];
        daemons.RemoveAll(IsIt);
        Begin(pipes, uint.Parse(Of("uid").Single()), nodes, $"/system.slice/{Of("unit").Single()}.service", ["PATH=/usr/bin", .. environment]);
        return new(0, "");
    }
}
