using System.Diagnostics;
using System.Text;
using GpuHandoff.Lab;
using GpuHandoff.Lab.Vm;

namespace GpuHandoff.Bench;

/// <summary>What the tool costs as Proxmox's hookscript.</summary>
static class HookContest
{
    /// <summary>What the hook may cost besides the hand-over, in seconds.</summary>
    const double MostOverhead = 0.1;

    public const string Title = "## As Proxmox's hookscript";

    const string Empty = "/usr/local/lib/empty-hook";

    /// <summary>The stand-in for Proxmox, which the machine needs, and a hook that does nothing.</summary>
    public static IEnumerable<LabFile> Files() =>
        [.. LabFile.FromFolder(Path.Combine(LabPlaces.Repository, "lab", "proxmox"), "/"), LabFile.From(EmptyHook(), Empty)];

    static string EmptyHook()
    {
        var folder = Path.Combine(LabPlaces.Repository, "artifacts", "publish", "empty-hook");
        using var publish = Process.Start(new ProcessStartInfo(
            Environment.GetEnvironmentVariable("DOTNET") ?? "dotnet",
            ["publish", Path.Combine(LabPlaces.Repository, "bench", "EmptyHook"), "-r", "linux-x64", "-c", "Release", "-o", folder, "--nologo", "-v", "quiet"])
        {
            RedirectStandardOutput = true,
        })!;
        var said = publish.StandardOutput.ReadToEnd();
        publish.WaitForExit();
        return publish.ExitCode == 0 ? Path.Combine(folder, "empty-hook") : throw new LabUnavailable($"the empty hook cannot be built: {said}", "see bench/EmptyHook");
    }

    /// <summary>The section, and the marks that it misses.</summary>
    public static (string Text, IReadOnlyList<string> Misses) Section(LabVm vm, int rounds)
    {
        var gpu = vm.Gpus[0].Address.Slot;
        vm.Run($"""
            qm lab-setup
            echo 'memory: 32' > /etc/pve/qemu-server/100.conf
            printf 'hookscript: local:snippets/gpu-handoff\nhostpci0: {gpu}\n' > /etc/pve/qemu-server/101.conf
            """).Ok();
        var bare = new Contest("a VM without a GPU", [
            new("bash", [("", "bash -c 'exit 0'")]),
            new("hook", [("", "gpu-handoff hook 100 pre-start")]),
            new("empty", [("", Empty)]),
            new("static", [("", "/bin/busybox true")]),
            new("nothing", [("", ":")]),
        ]).Run(vm, rounds);
        double Alone(string who) => Program.Median(bare[(who, "")]) - Program.Median(bare[("nothing", "")]);
        var ratio = Alone("hook") / Alone("bash");

        var costs = new List<(string Way, string Phase, HookCost Cost)>();
        foreach (var (way, policy) in new[] { ("modules kept", "echo 'free-by: unbind' > /etc/gpu-handoff.yaml"), ("modules unloaded (the default)", "rm -f /etc/gpu-handoff.yaml") })
        {
            vm.Run(policy).Ok();
            var (start, stop) = HookCost.Measure(vm, rounds, Empty);
            costs.Add((way, "pre-start", start));
            costs.Add((way, "post-stop", stop));
        }

        var text = new StringBuilder();
        text.Append($"""
            {Title}

            At another time than the rest of this page where the hook was measured alone (`bench hook`).

            Most VMs have no GPU, and their hook should cost nothing that anybody notices:

            | what | ms | ratio |
            |---|---|---|
            | `bash -c 'exit 0'` | {Program.Ms(Alone("bash"))} | 1.00 |
            | `gpu-handoff hook 100 pre-start`, a VM without a GPU | {Program.Ms(Alone("hook"))} | {ratio:0.00} |
            | an empty hook: a program that does nothing, built as gpu-handoff is | {Program.Ms(Alone("empty"))} | {Alone("empty") / Alone("bash"):0.00} |
            | a static program in C that does nothing | {Program.Ms(Alone("static"))} | {Alone("static") / Alone("bash"):0.00} |

            To reach: at most 2.00.

            A VM with one, timed by who waits for the hook: from its start to the end of its output. The steps are those of the
            hand-over, each from the look before it to the look after it. All else, above an empty hook that is called in the same way,
            is overhead: the VM's config and what else Proxmox has written, locks, survey, plan, records, the lease, the watch. The
            round in the middle of {rounds} is shown; beside it what the same hand-over takes by hand (`to_vfio`, `to_nvidia`).

            | way | phase | whole, ms | steps, ms | an empty hook, ms | overhead, ms | by hand, ms |
            |---|---|---|---|---|---|---|

            """);
        foreach (var (way, phase, cost) in costs)
        {
            text.Append($"| {way} | {phase} | {Program.Ms(cost.Whole)} | {Program.Ms(cost.Steps)} | {Program.Ms(cost.Empty)} ");
            text.Append($"| {Program.Ms(cost.Overhead())} | {Program.Ms(cost.Command)} |\n");
        }
        text.Append($"\nTo reach: an overhead of at most {Program.Ms(MostOverhead)} ms.\n");

        List<string> misses = [.. costs.Where(c => c.Cost.Overhead() > MostOverhead).Select(c => $"{c.Phase}, {c.Way}: an overhead of {Program.Ms(c.Cost.Overhead())} ms")];
        if (ratio > 2)
            misses.Add($"the hook of a VM without a GPU: {ratio:0.00}");
        return (text.ToString(), misses);
    }
}
