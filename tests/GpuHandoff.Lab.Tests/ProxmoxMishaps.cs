namespace GpuHandoff.Lab.Tests;

/// <summary>VMs that end, or do not, in ways that Proxmox's hooks say little of or nothing.</summary>
[Trait("Category", "Lab")]
[Collection(LabNode.Collection)]
public sealed class ProxmoxMishaps(LabNode node)
{
    LabVm Vm => node.Vm;

    PluggedGpu First => node.First;

    [LabFact]
    public void A_start_that_fails_after_the_hook_brings_no_other_hook_and_the_gpu_comes_home_all_the_same() => node.Case(() =>
    {
        node.Define(101, LabNode.Passes(First), "args: -no-such-option");
        var log = node.QmFails("start 101");
        log.ShouldContain("QEMU exited with code 1");
        node.Hooks(101).ShouldBe("pre-start");
        var took = node.ComesHome(First);
        Evidence.Record(
            "a VM's start fails after pre-start, and Proxmox calls nothing more",
            "took the card back to the host by itself",
            "the VM's own error in the task log, and the way home in the journal",
            $"home {took.TotalSeconds:f0} s after the failed start");
    });

    [LabFact]
    public void A_guest_that_powers_itself_off_gives_the_gpu_back_once_however_late_and_often_post_stop_comes() => node.Case(() =>
    {
        node.Define(101, LabNode.Passes(First));
        node.Qm("start 101");
        node.WaitForGuest(101);
        // qmeventd is held: QEMU stays as it is, with the card, until somebody tells it to quit.
        Vm.Run("pkill -STOP -f '[q]m qmeventd'").Ok();
        node.PowerOffInside(101);
        Thread.Sleep(TimeSpan.FromSeconds(3));
        node.Drivers(First).ShouldBe(LabNode.Away);
        Vm.Run("pkill -CONT -f '[q]m qmeventd'").Ok();
        node.ComesHome(First);
        node.Settled(101);
        node.Hooks(101).ShouldBe("pre-start post-start post-stop");

        Vm.Run("qm exec-hookscript 101 post-stop").Ok();
        node.Drivers(First).ShouldBe(LabNode.Home);
    });

    [LabFact]
    public void A_qemu_that_is_killed_gives_the_gpu_back_by_post_stop_by_the_watchdog_or_by_the_timer() => node.Case(() =>
    {
        foreach (var by in new[] { "post-stop", "the watchdog", "the timer" })
        {
            node.Define(101, LabNode.Passes(First));
            node.Qm("start 101");
            Vm.Run("systemctl list-units --plain --no-legend 'gpu-handoff-watch-proxmox:101-*'").Text.ShouldContain("running");
            Vm.Run(by switch
            {
                "post-stop" => "true",
                "the watchdog" => "systemctl stop qmeventd gpu-handoff-recover.timer",
                _ => "systemctl stop qmeventd; systemctl kill --signal=KILL 'gpu-handoff-watch-proxmox:101-*'; systemctl start gpu-handoff-recover.timer",
            }).Ok();
            Vm.Run($"kill -KILL {node.Pid(101)}").Ok();
            var took = node.ComesHome(First);
            if (by == "post-stop")
            {
                node.Settled(101);
                node.Hooks(101).ShouldBe("pre-start post-start post-stop");
                continue;
            }
            Evidence.Record(
                $"kill -9 to a VM's QEMU; post-stop never comes, and there is only {by}",
                "took the card back to the host by itself",
                "the way home in the journal",
                $"home {took.TotalSeconds:f0} s after the kill");
            // Proxmox's own leavings, which its next start would sweep up.
            Vm.Run("rm -f /run/qemu-server/101.* /run/qemu-server/pci-id-reservations").Ok();
        }
    });

    [LabFact]
    public void Post_stop_that_comes_while_qemu_still_has_the_gpu_waits_and_tells_and_unbinds_nothing() => node.Case(() =>
    {
        node.Define(101, LabNode.Passes(First));
        node.Policy("wait: 3");
        node.Qm("start 101");
        var pid = node.Pid(101);
        Vm.Run($"kill -STOP {pid}").Ok();
        var stopped = Vm.Run("LAB_PVE_SIGTERM_WAIT=1 LAB_PVE_SIGKILL_IS_LOST=1 qm stop 101");
        stopped.ToString().ShouldContain("terminating now with SIGKILL");
        stopped.ToString().ShouldContain(pid);
        node.Hooks(101).ShouldBe("pre-start post-start pre-stop post-stop!");
        node.Drivers(First).ShouldBe(LabNode.Away);
        Vm.Run("test ! -e /run/qemu-server/101.pid").Ok();
        // Proxmox is done with it, and nobody is told when it is gone at last.
        Vm.Run($"kill -KILL {pid}; kill -CONT {pid}");
        var took = node.ComesHome(First);
        Evidence.Record(
            "post-stop comes while a QEMU that does not die still has the card",
            "waited as long as it may, unbound nothing; took the card home when QEMU was gone",
            "that the VM still has the card, by its process",
            $"home {took.TotalSeconds:f0} s after its end");
    });
}
