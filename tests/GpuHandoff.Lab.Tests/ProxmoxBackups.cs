namespace GpuHandoff.Lab.Tests;

/// <summary>Backups: Proxmox starts a VM that is off for them, and one that runs anew.</summary>
[Trait("Category", "Lab")]
[Collection(LabNode.Collection)]
public sealed class ProxmoxBackups(LabNode node)
{
    Host Host => node.Host;

    LabVm Vm => node.Vm;

    PluggedGpu First => node.First;

    [LabFact]
    public void A_backup_of_a_stopped_vm_gets_the_gpu_if_it_is_free_and_stops_nobody_unless_the_policy_says_so() => node.CaseOfUsers(() =>
    {
        node.Define(101, LabNode.Passes(First));
        node.Qm("vzdump 101");
        node.Hooks(101).ShouldBe("pre-start post-start pre-stop post-stop");
        node.ComesHome(First);

        Vm.Run("pct start 107").Ok();
        var before = Host.Record();
        before.ShouldContain("of /lxc/107/ns has 195:0");
        foreach (var (policy, why) in new[]
        {
            ("", "107"), ("backup: always", "107"), ("backup: refuse", "backup: refuse"),
        })
        {
            node.Policy($"{policy}\nusers:\n  containers: restart");
            var log = node.QmFails("vzdump 101");
            log.ShouldContain(why);
            log.ShouldContain("Backup of VM 101 failed");
            Host.Record().ShouldBe(before);
        }

        node.Policy("backup: always\nbackup-containers: true\nusers:\n  containers: restart");
        var looks = Vm.Start("for i in $(seq 200); do [ -e /sys/fs/cgroup/lxc/107 ] || { echo stopped; exit; }; sleep 0.1; done");
        node.Qm("vzdump 101");
        looks.Wait(TimeSpan.FromSeconds(60)).Text.ShouldBe("stopped");
        node.ComesHome(First);
        Host.Record().ShouldBe(before);
    });

    [LabFact]
    public void A_running_vm_keeps_its_gpu_through_its_backup_whatever_the_policy_says_of_those_that_are_off() => node.CaseOfUsers(() =>
    {
        const string units = "users:\n  units: restart";
        node.Work("ollama");
        var before = Host.Record();
        node.Policy(units);
        node.Define(101, LabNode.Passes(First));
        node.Qm("start 101");
        var pid = node.Pid(101);

        node.Qm("vzdump 101 --mode snapshot").Text.ShouldContain("INFO: resuming VM again");
        node.Undisturbed(101, pid, First);
        var hooks = "pre-start post-start";
        node.Hooks(101).ShouldBe(hooks);

        foreach (var (policy, storageTakes) in new[] { ("backup: free", 0), ("backup: refuse\nreboot: return", 12) })
        {
            node.Policy($"{policy}\n{units}");
            node.WaitForGuest(101);
            // Neither is the card away from vfio-pci in between, nor do the units come that it was taken from.
            var looks = Vm.Start($"""
                rm -f /run/lab-pve/enough
                while [ ! -e /run/lab-pve/enough ]; do
                    [ -e /sys/bus/pci/drivers/vfio-pci/{First.Address} ] || echo the card went home
                    [ ! -e /sys/fs/cgroup/system.slice/ollama.service ] || echo its unit came back
                    sleep 0.1
                done
                """);
            var backup = Vm.Run($"LAB_PVE_STORAGE_TAKES={storageTakes} qm vzdump 101 --mode stop");
            Vm.Run("touch /run/lab-pve/enough").Ok();
            looks.Wait(TimeSpan.FromSeconds(30)).Text.ShouldBe("");
            backup.ExitCode.ShouldBe(0, backup.ToString());
            backup.Text.ShouldContain("its backup starts it anew");
            backup.Text.ShouldContain("INFO: resuming VM again");
            node.Hooks(101).ShouldBe(hooks += " pre-stop post-stop pre-start post-start");
            pid.ShouldNotBe(pid = node.Pid(101));
            node.Undisturbed(101, pid, First);
        }
        // The lock of a backup that goes on for hours, and a QEMU that dies under it: nothing starts this one anew.
        Vm.Run($"echo 'lock: backup' >> /etc/pve/qemu-server/101.conf; kill -KILL {pid}").Ok();
        node.ComesHome(First);
        node.IsAtWork("ollama");
        node.Hooks(101).ShouldBe(hooks + " post-stop");
        Host.Record().ShouldBe(before);
    });
}
