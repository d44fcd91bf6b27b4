using System.Diagnostics;
using System.Text;
using GpuHandoff.Kernel;
using GpuHandoff.Linux;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Bench;

/// <summary>The search for a device's users on a crowded machine, this one: thousands of real processes are started for it.</summary>
static class HoldersContest
{
    public const string Title = "## Finding who uses the GPU";

    const int Processes = 10_000;
    const int Descriptors = 20;
    const int Rounds = 5;
    const double Goal = 1;

    // A device that is everywhere and that hardly anybody has open.
    const string Device = "/dev/full";

    public static string Section()
    {
        using var folder = new Folder();
        using var crowd = Crowd.Start(folder.Path);
        var kernel = new LinuxKernel(hand: null);
        var machine = new Machine("", "")
        {
            Nodes = [new(Device, kernel.NodeAt(new(Device))!)],
            Modules = [new("nvidia", ModuleState.Loaded, RefCount: 1, [])],
        };
        var descriptors = kernel.List(Sys.Proc).Where(name => int.TryParse(name, out _)).Sum(name => kernel.List(Sys.Proc / name / "fd").Count);

        (string Name, Func<IEnumerable<int>> Find)[] contestants =
        [
            ("gpu-handoff", () => Holders.Find(machine, kernel).Users.Select(u => u.Pid)),
            ("fuser", () => Pids("fuser", Device)),
            ("lsof", () => Pids("lsof", "-n", "-w", "-t", Device)),
        ];
        var times = contestants.ToDictionary(c => c.Name, _ => new List<double>());
        var found = new Dictionary<string, int>();
        for (var round = 0; round <= Rounds; round++)
        {
            foreach (var (name, find) in round % 2 == 0 ? contestants : contestants.Reverse())
            {
                var clock = Stopwatch.StartNew();
                found[name] = find().Count(crowd.Users.Contains);
                if (round > 0)
                    times[name].Add(clock.Elapsed.TotalSeconds);
            }
        }

        var text = new StringBuilder();
        text.Append($"""
            {Title}

            {Processes} processes with {descriptors / 1000} thousand open descriptors between them, real ones, on the machine that ran this
            ({Environment.ProcessorCount} processors); {Rounds} rounds side by side, medians. Two of them use a device, one through a node of another name and inode,
            as a container's would be. gpu-handoff's figure is the search alone, mappings and names included; the others' start a
            program, which is nothing here.

            | by | ms | ratio | users found |
            |---|---|---|---|

            """);
        var ours = Program.Median(times["gpu-handoff"]);
        foreach (var (name, _) in contestants)
        {
            var time = Program.Median(times[name]);
            text.Append($"| {name} | {Program.Ms(time)} | {time / ours:0.00} | {found[name]} of {crowd.Users.Count} |\n");
        }
        text.Append($"\nTo reach: gpu-handoff below {Goal * 1000:0} ms.\n");
        if (ours > Goal)
            Console.Error.WriteLine($"the search for users misses its mark: {ours:0.00} s");
        return text.ToString();
    }

    // Both end with 1 where they could not look at everything; what they print counts.
    static IEnumerable<int> Pids(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        process.ErrorDataReceived += static (_, _) => { };
        process.BeginErrorReadLine();
        var text = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return text.Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries).Select(int.Parse);
    }

    /// <summary>The processes: a shell with the descriptors open starts them, and they inherit.</summary>
    sealed class Crowd : IDisposable
    {
        readonly Process _shell;

        Crowd(Process shell, IReadOnlyList<int> users)
        {
            _shell = shell;
            Users = users;
        }

        public IReadOnlyList<int> Users { get; }

        public static Crowd Start(string folder)
        {
            // Descriptors 0, 1 and 2 are there already.
            var script = $$"""
                ulimit -n 4096
                mknod {{folder}}/gpu c 1 7
                sleep 900 < {{Device}} & echo $!
                sleep 900 < {{folder}}/gpu & echo $!
                for n in {3..{{Descriptors - 1}}}; do eval "exec $n> {{folder}}/$n"; done
                for ((i = 2; i < {{Processes}}; i++)); do sleep 900 > /dev/null & done
                echo ready
                wait
                """;
            var shell = Process.Start(new ProcessStartInfo("setsid", ["bash", "-c", script])
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
            })!;
            var users = new List<int>();
            while (shell.StandardOutput.ReadLine() is { } line && line != "ready")
                users.Add(int.Parse(line));
            return new(shell, users);
        }

        public void Dispose()
        {
            // setsid made the shell the leader of a group of its own: the group is the crowd and nobody else.
            using var end = Process.Start("kill", ["-KILL", "--", $"-{_shell.Id}"]);
            end.WaitForExit();
            _shell.WaitForExit();
            _shell.Dispose();
        }
    }

    sealed class Folder : IDisposable
    {
        public string Path { get; } = Directory.CreateTempSubdirectory("holders").FullName;

        public void Dispose() => Directory.Delete(Path, recursive: true);
    }
}
