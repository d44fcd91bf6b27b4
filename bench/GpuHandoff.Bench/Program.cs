using System.Globalization;
using System.Text;
using GpuHandoff.Lab;
using GpuHandoff.Lab.Vm;

namespace GpuHandoff.Bench;

static class Program
{
    const int Rounds = 9;
    const string Floor = "a shell's builtins (the floor)";
    const string Us = "gpu-handoff";

    static string Page => Path.Combine(LabPlaces.Repository, "docs", "performance.md");

    static int Main(string[] arguments)
    {
        CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
        if (arguments is ["holders"])
        {
            // Everything after its heading is its own: it comes last on the page.
            var section = HoldersContest.Section();
            File.WriteAllText(Page, File.ReadAllText(Page).Split(HoldersContest.Title)[0].TrimEnd() + "\n\n" + section);
            Console.Out.Write(section);
            return 0;
        }
        if (arguments is ["last-look"])
        {
            var section = LastLookContest.Section();
            var page = File.ReadAllText(Page);
            var own = page.IndexOf(LastLookContest.Title, StringComparison.Ordinal);
            var last = page.IndexOf(HoldersContest.Title, StringComparison.Ordinal);
            File.WriteAllText(Page, page[..(own < 0 ? last : own)] + section + "\n" + page[last..]);
            Console.Out.Write(section);
            return 0;
        }
        var binary = Path.Combine(LabPlaces.Repository, "artifacts", "publish", "gpu-handoff");
        using var vm = LabVm.Boot(
            new() { Name = "bench", Files = [LabFile.From(binary, "/usr/sbin/gpu-handoff"), .. HookContest.Files()] }, Console.Error.WriteLine);
        vm.Run("modprobe vfio-pci; modprobe nvidia && modprobe nvidia_modeset && modprobe nvidia_uvm").Ok();
        if (arguments is ["hook"])
        {
            var (section, misses) = HookContest.Section(vm, Rounds);
            var page = File.ReadAllText(Page);
            var begin = page.IndexOf(HookContest.Title, StringComparison.Ordinal);
            var end = page.IndexOf("\n## ", begin < 0 ? 0 : begin + 1, StringComparison.Ordinal);
            if (begin < 0)
                throw new InvalidDataException($"{Page} has no section \"{HookContest.Title}\": make bench writes the whole page");
            File.WriteAllText(Page, $"{page[..begin]}{section}{(end < 0 ? "" : page[end..])}");
            Console.Out.Write(section);
            return Tell(misses);
        }

        var text = new StringBuilder();
        text.Append($"""
            # Performance

            Written by `make bench`; not edited by hand. One boot of the lab's VM ({vm.Accelerator}, 2 processors), everything side by
            side, {Rounds} rounds, medians. The machine is emulated, so the times are long; what counts is the ratio. Each command is
            timed as a script of its own, so every row holds one start of a shell, which is given for comparison.


            """);
        var gpu = vm.Gpus[0];
        var addresses = gpu.Functions.Select(f => f.Address.ToString()).ToArray();

        var bare = new Contest("start", [
            new("bash", [("bash -c 'exit 0'", "bash -c 'exit 0'")]),
            new(Us, [("status", "gpu-handoff status"), ("version", "gpu-handoff version")]),
            new("empty script", [("(nothing)", ":")]),
        ]).Run(vm, Rounds);
        var shell = Median(bare[("empty script", "(nothing)")]);
        var bash = Median(bare[("bash", "bash -c 'exit 0'")]) - shell;
        var status = Median(bare[(Us, "status")]) - shell;
        text.Append($"""
            ## Starting and looking

            | what | ms | ratio |
            |---|---|---|
            | `bash -c 'exit 0'` | {Ms(bash)} | 1.00 |
            | `gpu-handoff version` | {Ms(Median(bare[(Us, "version")]) - shell)} | {(Median(bare[(Us, "version")]) - shell) / bash:0.00} |
            | `gpu-handoff status` | {Ms(status)} | {status / bash:0.00} |

            The empty script's {Ms(shell)} ms are taken off. To reach: `status` at most 2.00.


            """);

        vm.Run("modprobe nvidia_drm").Ok();
        var whole = new Contest("unloading", [
            new(Floor, [
                ("to vfio", "rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia\n" + ShellFloor.ToVfio(gpu)),
                ("back", ShellFloor.ToHost(gpu).Replace("drivers_probe", "drivers_probe || :") + "\nfor m in nvidia nvidia_modeset nvidia_drm nvidia_uvm; do modprobe $m; done"),
            ]),
            new(Us, [("to vfio", "gpu-handoff to_vfio"), ("back", "gpu-handoff to_nvidia")]),
        ]);
        text.Append("""
            ## Handing over by unloading

            All four modules go and come back; the floor is `rmmod`, the same writes, and `modprobe`.


            """);
        Table(text, whole.Run(vm, Rounds), Floor);
        vm.Run("rmmod nvidia_drm").Ok();

        vm.Run("systemctl start libvirtd && virsh -q nodedev-list > /dev/null").Ok();
        var virsh = addresses.Select(a => "pci_" + a.Replace(':', '_').Replace('.', '_')).ToArray();
        var kept = new Contest("modules kept", [
            new(Floor, [("to vfio", ShellFloor.ToVfio(gpu)), ("back", ShellFloor.ToHost(gpu))]),
            new(Us, [("to vfio", "gpu-handoff to_vfio --policy unbind"), ("back", "gpu-handoff to_nvidia")]),
            new("driverctl", [
                ("to vfio", "set -e\n" + Lines(addresses, a => $"driverctl --nosave set-override {a} vfio-pci")),
                ("back", "set -e\n" + Lines(addresses, a => $"driverctl --nosave unset-override {a}")),
            ]),
            new("virsh nodedev", [
                ("to vfio", "set -e\n" + Lines(virsh, d => $"virsh -q nodedev-detach {d}")),
                ("back", "set -e\n" + Lines(virsh, d => $"virsh -q nodedev-reattach {d}")),
            ]),
        ]).Run(vm, Rounds);
        text.Append("""

            ## Handing over with the modules kept loaded

            GPU and audio function, nvidia, nvidia_modeset and nvidia_uvm loaded (nvidia_drm is not: this driver cannot unbind a card
            under it). gpu-handoff looks at the whole machine, plans, writes its journal to disk, and reads every change back.


            """);
        Table(text, kept, Floor);
        text.Append("\nTo reach: gpu-handoff at most 2.00 in both directions.\n\n");

        var hook = HookContest.Section(vm, Rounds);
        text.Append(hook.Text).Append('\n');

        var memory = Peak(vm, "gpu-handoff to_vfio") + Peak(vm, "gpu-handoff --hand");
        vm.Run("gpu-handoff to_nvidia").Ok();
        text.Append($"""
            ## Size

            | what | figure | to reach |
            |---|---|---|
            | binary | {new FileInfo(binary).Length / 1e6:0.0} MB | 12 MB |
            | peak memory of a hand-over, both processes | {memory / 1e3:0.0} MB | 20 MB |

            """);

        text.Append('\n').Append(LastLookContest.Section()).Append('\n').Append(HoldersContest.Section());
        File.WriteAllText(Page, text.ToString());
        Console.Out.Write(text);

        var ratios = new[] { ("status", status / bash), ("to_vfio", Ratio(kept, "to vfio")), ("to_nvidia", Ratio(kept, "back")) };
        return Tell([.. ratios.Where(r => r.Item2 > 2).Select(r => $"{r.Item1}: {r.Item2:0.00}"), .. hook.Misses]);
    }

    /// <summary>The exit code that goes with it.</summary>
    static int Tell(IReadOnlyList<string> misses)
    {
        foreach (var miss in misses)
            Console.Error.WriteLine($"misses its mark: {miss}");
        return misses.Count == 0 ? 0 : 1;
    }

    static double Ratio(Dictionary<(string Who, string What), List<double>> times, string what) =>
        Median(times[(Us, what)]) / Median(times[(Floor, what)]);

    static void Table(StringBuilder text, Dictionary<(string Who, string What), List<double>> times, string floor)
    {
        text.Append("| by | to vfio, ms | ratio | back, ms | ratio |\n|---|---|---|---|---|\n");
        foreach (var who in times.Keys.Select(k => k.Who).Distinct().OrderByDescending(w => w == floor).ThenByDescending(w => w == Us))
        {
            var (there, back) = (Median(times[(who, "to vfio")]), Median(times[(who, "back")]));
            text.Append($"| {who} | {Ms(there)} | {there / Median(times[(floor, "to vfio")]):0.00} ");
            text.Append($"| {Ms(back)} | {back / Median(times[(floor, "back")]):0.00} |\n");
        }
    }

    /// <summary>The resident peak of a command, in KB: ru_maxrss of a waited child (perl is in every Debian).</summary>
    static double Peak(LabVm vm, string command) => double.Parse(vm.Run(
        $"perl -e '$s = system(@ARGV); $b = \"\\0\" x 144; syscall(98, -1, $b); print unpack(\"x32q\", $b); exit($s >> 8)' {command} 2> /dev/null < /dev/null").Ok().Text);

    static string Lines(IEnumerable<string> names, Func<string, string> line) => string.Join('\n', names.Select(line));

    public static string Ms(double seconds) => $"{seconds * 1000:0}";

    public static double Median(List<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[sorted.Length / 2 - 1] + sorted[sorted.Length / 2]) / 2;
    }
}
