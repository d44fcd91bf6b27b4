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

    IEnumerable<Daemon> Running => daemons.Where(daemon => kernel.Processes.Running.Contains(daemon.Control));

    /// <summary>Each one that runs: its pipes, its user, and whether it has its server.</summary>
    public IEnumerable<string> Daemons => Running.Select(daemon =>
        $"{daemon.Pipes} user={daemon.Control.User} server={kernel.Processes.Running.Contains(daemon.Server)} {string.Join(' ', daemon.Control.Environment)}");

    public void Start(string pipes, uint user, IReadOnlyList<string> nodes, string cgroup)
    {
        kernel.Programs[Programs.MpsControl] = new(static _ => false, static arguments => throw InstalledProgram.Untaught(Programs.MpsControl, arguments))
        {
            Talk = Talk,
        };
        kernel.Programs[Programs.SystemdRun] = new(static _ => false, RunTransient);
        string[] environment = pipes == MpsDaemon.DefaultPipes ? ["PATH=/usr/bin"] : ["PATH=/usr/bin", $"{MpsDaemon.PipesName}={pipes}"];
        Begin(pipes, user, nodes, cgroup, environment);
    }

    public SimulatedProcess StartClient(string pipes)
    {
        var daemon = Running.First(daemon => daemon.Pipes == pipes);
        var client = kernel.StartProcess("python3");
        kernel.OpenWhatIsThere(daemon.Nodes, client);
        daemon.Clients.Add(client);
        return client;
    }

    void Begin(string pipes, uint user, IReadOnlyList<string> nodes, string cgroup, IReadOnlyList<string> environment)
    {
        var control = kernel.StartProcess(MpsDaemon.Comm, cgroup);
        (control.CommandLine, control.User, control.Environment) = (["nvidia-cuda-mps-control", "-d"], user, environment);
        // The server comes with the first client; here one comes at once.
        var server = kernel.StartProcess(MpsDaemon.Comm, cgroup);
        (server.CommandLine, server.User, server.Environment, server.Parent) = (["nvidia-cuda-mps-server"], user, environment, control.Pid);
        kernel.OpenWhatIsThere(nodes, server);
        daemons.Add(new(pipes, nodes, control, server));
    }

    // nvidia-cuda-mps-control(1): commands on stdin, the daemon found by its pipe directory.
    ProgramResult Talk(string word, IReadOnlyList<string> environment)
    {
        var pipes = environment.Select(entry => entry.Split('=', 2)).FirstOrDefault(entry => entry[0] == MpsDaemon.PipesName)?[1] ?? MpsDaemon.DefaultPipes;
        if (Running.FirstOrDefault(daemon => daemon.Pipes == pipes) is not { } daemon)
            return new(1, $"Cannot find MPS control daemon process");
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
        if (Running.Any(daemon => daemon.Pipes == pipes))
            return new(1, "An instance of this daemon is already running");
        var nodes = daemons.Find(daemon => daemon.Pipes == pipes)?.Nodes ?? [];
        daemons.RemoveAll(daemon => daemon.Pipes == pipes);
        Begin(pipes, uint.Parse(Of("uid").Single()), nodes, $"/system.slice/{Of("unit").Single()}.service", ["PATH=/usr/bin", .. environment]);
        return new(0, "");
    }
}
