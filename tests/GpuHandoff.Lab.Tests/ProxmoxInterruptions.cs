namespace GpuHandoff.Lab.Tests;

/// <summary>The task of a start or a stop is ended from outside, at a moment that its log tells.</summary>
[Trait("Category", "Lab")]
[Collection(LabNode.Collection)]
public sealed class ProxmoxInterruptions(LabNode node)
{
    LabVm Vm => node.Vm;

    PluggedGpu First => node.First;

    [LabFact]
    public void A_start_that_is_ended_in_any_phase_of_its_hook_leaves_the_gpu_at_home() => node.CaseOfUsers(() =>
    {
        node.Define(101, LabNode.Passes(First));
        node.Policy("users:\n  units: restart");

        // It waits for somebody else's run.
        var other = Holding();
        Ended("start", "is at work on", Button).ShouldNotContain($"hand {First.Address.Slot}");
        other.Kill();
        IsHomeAgain();

        // The units that have the card are being stopped.
        node.Work("slow", stopsIn: 3);
        Ended("start", $"hand {First.Address.Slot}", Button).ShouldNotContain("bind: ");
        IsHomeAgain();
        node.IsAtWork("slow");
        Vm.Run("echo 0 > /run/slow; systemctl stop slow").Ok();
    });

    [LabFact]
    public void A_start_that_is_ended_while_nvidia_lets_go_is_undone_or_brought_home() => node.CaseOfUsers(() =>
    {
        node.Define(101, LabNode.Passes(First));
        foreach (var end in new[] { Worker, Button })
        {
            node.Knob("remove_hang", 3);
            Ended("start", "siblings: ", end).ShouldNotContain("bind: ");
            node.Knob("remove_hang", 0);
            var took = IsHomeAgain();
            Evidence.Record(
                end == Button ? "the Stop button of Proxmox's task while nvidia's remove() takes 3 s" : "SIGTERM to Proxmox's worker alone while nvidia's remove() takes 3 s",
                end == Button ? "let the step in hand end, then rolled back, though nobody listened any more" : "ended the hand-over, and took the card home as no VM came",
                "that the task was interrupted",
                $"home {took.TotalSeconds:f0} s later");
        }
    });

    [LabFact]
    public void A_start_that_is_ended_while_qemu_comes_up_leaves_the_gpu_with_a_running_vm_or_brings_it_home() => node.Case(() =>
    {
        node.Define(101, LabNode.Passes(First));
        foreach (var (line, end) in new[] { ("bind: ", AtOnce), ("done in", Worker), ("done in", AtOnce) })
        {
            Ended("start", line, end);
            node.Hooks(101).ShouldNotContain("post-start");
            // A QEMU that was being started when its worker ended may still come up: whoever starts it has it as a child for that long.
            Vm.Run("""
                while pgrep -f '[s]ystemd-run.*101.scope|[q]emu-system.*/101.pid' > /dev/null && [ ! -e /run/qemu-server/101.pid ]; do sleep 0.1; done
                """).Ok();
            if (Vm.Run("cat /run/qemu-server/101.pid").Text is { Length: > 0 } pid)
            {
                node.Undisturbed(101, pid, First);
                node.Qm("stop 101");
            }
            IsHomeAgain();
        }
    });

    [LabFact]
    public void A_task_that_is_ended_while_the_vm_is_being_pinned_leaves_it_running_with_its_gpu() => node.Case(() =>
    {
        node.Policy("pin:\n  vcpus: \"1,0\"");
        node.Define(101, LabNode.Passes(First));
        foreach (var end in new[] { Worker, Button })
        {
            var begun = Begin("start");
            node.AwaitLog("qmstart-101", "done in");
            // It cannot write down yet what it has found out.
            var other = Holding();
            node.AwaitLog("qmstart-101", "pinned: ", end);
            IsEnded(begun);
            other.Kill();
            node.Undisturbed(101, node.Pid(101), First);
            node.Leases().ShouldContain(First.Address.ToString());
            node.Qm("stop 101");
            IsHomeAgain();
        }
    });

    [LabFact]
    public void A_stop_that_is_ended_while_qemu_has_not_let_go_or_the_gpu_is_on_its_way_brings_it_home() => node.CaseOfUsers(() =>
    {
        node.Define(101, LabNode.Passes(First));
        node.Qm("start 101");
        var pid = node.Pid(101);
        Vm.Run($"kill -STOP {pid}").Ok();
        Ended("stop", "waiting for a VM to let go", Button, "LAB_PVE_SIGTERM_WAIT=1 LAB_PVE_SIGKILL_IS_LOST=1");
        node.Drivers(First).ShouldBe(LabNode.Away);
        Vm.Run($"kill -KILL {pid}; kill -CONT {pid}");
        IsHomeAgain();

        foreach (var end in new[] { Worker, Button })
        {
            node.Qm("start 101");
            node.Knob("probe_delay_ms", 3000);
            Ended("stop", $"hand {First.Address.Slot} back", end).ShouldNotContain("bind: ");
            node.Knob("probe_delay_ms", 0);
            IsHomeAgain();
        }
    });

    /// <summary>SIGTERM to the worker alone, of which the hook hears nothing.</summary>
    const string Worker = "kill -TERM $(< /run/lab-pve/101.task)";

    /// <summary>The Stop button: SIGTERM to all of the worker's group.</summary>
    const string Button = "qm stop-task 101";

    /// <summary>The same without the time that it takes to come up.</summary>
    const string AtOnce = "kill -TERM -- -$(< /run/lab-pve/101.task)";

    LabCommand Begin(string task, string environment = "")
    {
        Vm.Run($"rm -f /run/lab-pve/hooks /var/log/pve/tasks/qm{task}-101").Ok();
        return Vm.Start($"{environment} qm {task} 101");
    }

    /// <summary>Begins a task and ends it as soon as its log says this; the answer is what it has said by then.</summary>
    string Ended(string task, string line, string end, string environment = "")
    {
        var begun = Begin(task, environment);
        node.AwaitLog($"qm{task}-101", line, end);
        return IsEnded(begun);
    }

    static string IsEnded(LabCommand begun)
    {
        var said = begun.Wait(TimeSpan.FromSeconds(60)).Text;
        said.ShouldContain("received interrupt");
        return said;
    }

    /// <summary>Somebody else's run has the card's lock, until it is killed.</summary>
    LabCommand Holding() => Vm.Start($"exec flock --close /run/gpu-handoff/lock-gpu-{First.Address} sleep 600");

    TimeSpan IsHomeAgain()
    {
        var took = node.ComesHome(First);
        node.Settled(101);
        return took;
    }
}
