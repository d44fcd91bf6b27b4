using System.Text;
using GpuHandoff.Lab;
using GpuHandoff.Lab.Vm;

namespace GpuHandoff.Bench;

/// <summary>What the tool costs as Proxmox's hookscript.</summary>
static class HookContest
{
    /// <summary>The stand-in for Proxmox, which the machine needs.</summary>
    public static IEnumerable<LabFile> Files { get; } = LabFile.FromFolder(Path.Combine(LabPlaces.Repository, "lab", "proxmox"), "/");

    /// <summary>The section, and by how much a VM without a GPU misses or keeps its mark.</summary>
    public static (string Text, double Ratio) Section(LabVm vm, int rounds)
    {
        var gpu = vm.Gpus[0].Address.Slot;
        vm.Run($"""
            qm lab-setup
            echo 'memory: 32' > /etc/pve/qemu-server/100.conf
            printf 'hookscript: local:snippets/gpu-handoff\nhostpci0: {gpu}\n' > /etc/pve/qemu-server/101.conf
            echo 'free-by: unbind' > /etc/gpu-handoff.yaml
            """).Ok();
        var bare = new Contest("a VM without a GPU", [
            new("bash", [("", "bash -c 'exit 0'")]),
            new("hook", [("", "gpu-handoff hook 100 pre-start")]),
            new("empty", [("", "/bin/busybox true")]),
            new("nothing", [("", ":")]),
        ]).Run(vm, rounds);
        double Alone(string who) => Program.Median(bare[(who, "")]) - Program.Median(bare[("nothing", "")]);
        var ratio = Alone("hook") / Alone("bash");
        var (start, stop) = HookCost.Measure(vm, rounds);
        vm.Run("rm /etc/gpu-handoff.yaml").Ok();

        var text = new StringBuilder();
        text.Append($"""
            ## As Proxmox's hookscript

            Most VMs have no GPU, and their hook should cost nothing that anybody notices:

            | what | ms | ratio |
            |---|---|---|
            | `bash -c 'exit 0'` | {Program.Ms(Alone("bash"))} | 1.00 |
            | `gpu-handoff hook 100 pre-start`, a VM without a GPU | {Program.Ms(Alone("hook"))} | {ratio:0.00} |
            | a static program that does nothing | {Program.Ms(Alone("empty"))} | {Alone("empty") / Alone("bash"):0.00} |

            To reach: at most 2.00.

            A VM with one, its modules kept loaded, timed by who waits for the hook: from its start to the end of its output. The
            overhead is what being a hook adds to the same hand-over by hand (`to_vfio`, `to_nvidia`): the VM's config and what
            else Proxmox has written, the lease, the watchdog. An empty hook is a static program that does nothing.

            | phase | whole, ms | by hand, ms | steps alone, ms | an empty hook, ms | overhead, ms |
            |---|---|---|---|---|---|
            | pre-start | {Program.Ms(start.Whole)} | {Program.Ms(start.Command)} | {Program.Ms(start.Steps)} | {Program.Ms(start.Empty)} | {Program.Ms(start.Overhead())} |
            | post-stop | {Program.Ms(stop.Whole)} | {Program.Ms(stop.Command)} | {Program.Ms(stop.Steps)} | {Program.Ms(stop.Empty)} | {Program.Ms(stop.Overhead())} |

            To reach: an overhead of at most 100 ms.

            """);
        return (text.ToString(), ratio);
    }
}
