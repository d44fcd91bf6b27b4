namespace GpuHandoff.Lab.Tests;

/// <summary>
/// From VM start to VM stop, and every way in between, in the order in which Proxmox does it. After each case every GPU is at
/// home, modules and drivers are as before, vfio-pci's new_id is empty, and no lease, journal or reservation is left.
/// </summary>
[Trait("Category", "Lab")]
[Collection(LabNode.Collection)]
public sealed class ProxmoxLifeCycles(LabNode node)
{
    Host Host => node.Host;

    LabVm Vm => node.Vm;

    PluggedGpu First => node.First;

    PluggedGpu Second => node.Second;

    [LabFact]
    public void A_vm_gets_its_gpu_when_it_starts_and_the_host_has_it_again_when_it_has_stopped() => node.Case(() =>
    {
        foreach (var (way, more) in new[] { ("new clean-up", ""), ("legacy clean-up", ",driver=keep") })
        {
            if (way == "legacy clean-up")
                Vm.Run("touch /run/qemu-server/force-legacy-cleanup").Ok();
            node.Define(101, "name: gaming", LabNode.Passes(First, more: more));
            if (way == "new clean-up")
                LooksOnly(0, "hook 101 pre-start --dry-run").ShouldContain("vfio-pci");
            var started = node.Qm("start 101");
            node.Drivers(First).ShouldBe(LabNode.Away);
            node.Drivers(Second).ShouldBe(LabNode.Home);
            node.Hooks(101).ShouldEndWith("pre-start post-start");
            OpensGroup(node.Pid(101)).ShouldBeTrue("QEMU has the group open");
            var leases = node.Leases();
            leases.ShouldContain("101");
            leases.ShouldContain(First.Address.ToString());
            leases.ShouldContain(node.Pid(101));
            node.Leases().ShouldNotContain(Second.Address.ToString());
            Keep($"start-{way}.txt", started);

            Keep($"stop-{way}.txt", node.Qm("stop 101"));
            node.ComesHome(First);
            // Legacy: the task is over before post-stop.
            Vm.Run("for i in $(seq 100); do grep -q post-stop /run/lab-pve/hooks && exit; sleep 0.1; done; exit 1").Ok();
            node.Hooks(101).ShouldBe("pre-start post-start pre-stop post-stop");
            Vm.Run("rm /run/lab-pve/hooks").Ok();
        }
    });

    [LabFact]
    public void The_threads_of_a_vm_run_where_the_policy_pins_them() => node.Case(() =>
    {
        node.Policy("pin:\n  vcpus: \"1,0\"\n  emulator: \"1\"");
        node.Define(101, LabNode.Passes(First));
        node.Qm("start 101");
        var threads = Vm.Run($$"""
            for t in /proc/{{node.Pid(101)}}/task/*; do
                # In one read: a status that changes between two of a shell's has holes.
                echo "$(cat $t/comm): $(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' $t/status)"
            done
            """).Ok().Text.Split('\n');
        threads.ShouldContain("CPU 0/TCG: 1");
        threads.ShouldContain("CPU 1/TCG: 0");
        threads.Where(t => !t.StartsWith("CPU ", StringComparison.Ordinal)).ShouldNotBeEmpty();
        threads.Where(t => !t.StartsWith("CPU ", StringComparison.Ordinal)).ShouldAllBe(t => t.EndsWith(": 1"));
        node.Qm("stop 101");
        node.ComesHome(First);
    });

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
        Settled(101);
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
            Vm.Run("systemctl list-units --plain --no-legend 'gpu-handoff-watch-101*'").Text.ShouldContain("running");
            Vm.Run(by switch
            {
                "post-stop" => "true",
                "the watchdog" => "systemctl stop qmeventd gpu-handoff-recover.timer",
                _ => "systemctl stop qmeventd; systemctl kill --signal=KILL 'gpu-handoff-watch-101*'; systemctl start gpu-handoff-recover.timer",
            }).Ok();
            Vm.Run($"kill -KILL {node.Pid(101)}").Ok();
            var took = node.ComesHome(First);
            if (by == "post-stop")
            {
                Settled(101);
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
    public void A_reboot_keeps_the_gpu_on_its_way_or_returns_it_in_between_and_all_is_in_order() => node.Case(() =>
    {
        foreach (var returns in new[] { false, true })
        {
            node.Policy(returns ? "reboot: return" : "reboot: keep");
            node.Define(101, LabNode.Passes(First));
            node.Qm("start 101");
            node.WaitForGuest(101);
            var pid = node.Pid(101);
            var looks = Vm.Start($"""
                rm -f /run/lab-pve/enough
                while [ ! -e /run/lab-pve/enough ]; do [ -e /sys/bus/pci/drivers/vfio-pci/{First.Address} ] || echo gone; sleep 0.05; done
                """);
            node.Qm("reboot 101");
            Vm.Run($$"""
                for i in $(seq 300); do
                    [ $(grep -c post-start /run/lab-pve/hooks) != 2 -o "$(cat /run/qemu-server/101.pid 2> /dev/null)" = {{pid}} ] || exit 0
                    sleep 0.1
                done
                exit 1
                """).Ok();
            Vm.Run("touch /run/lab-pve/enough").Ok();
            looks.Wait(TimeSpan.FromSeconds(30)).Text.Contains("gone", StringComparison.Ordinal).ShouldBe(returns);
            node.Drivers(First).ShouldBe(LabNode.Away);
            node.Hooks(101).ShouldBe("pre-start post-start pre-stop post-stop pre-start post-start");
            node.Qm("stop 101");
            node.ComesHome(First);
            Settled(101);
            Vm.Run("rm /run/lab-pve/hooks").Ok();
        }
    });

    [LabFact]
    public void A_quick_start_after_a_stop_keeps_its_gpu_though_the_old_post_stop_comes_late_or_never() => node.Case(() =>
    {
        Vm.Run("touch /run/qemu-server/force-legacy-cleanup").Ok();
        node.Policy("wait: 1");
        node.Define(101, LabNode.Passes(First));
        node.Qm("start 101");
        Vm.Run("pkill -STOP -f '[q]m qmeventd'").Ok();
        node.Qm("stop 101");
        node.Qm("start 101");
        var pid = node.Pid(101);
        // It finds a running VM and gives up: the first post-stop is lost.
        Vm.Run("pkill -CONT -f '[q]m qmeventd'").Ok();
        Thread.Sleep(TimeSpan.FromSeconds(2));
        node.Hooks(101).ShouldBe("pre-start post-start pre-stop pre-start post-start");
        // As if it had been called all the same, by somebody who is late.
        var late = Vm.Run("timeout 60 qm exec-hookscript 101 post-stop");
        (late.Output + late.Errors).ShouldContain($"a VM has {First}");
        Undisturbed(101, pid, First);
        node.Qm("stop 101");
        node.ComesHome(First);
        Settled(101);
    });

    [LabFact]
    public void A_shutdown_that_times_out_leaves_vm_and_gpu_alone() => node.Case(() =>
    {
        // Nobody listens to the power button.
        node.Define(101, LabNode.Passes(First), "ide0: none");
        node.Qm("start 101");
        var pid = node.Pid(101);
        node.QmFails("shutdown 101 --timeout 2").ShouldContain("got timeout");
        node.Hooks(101).ShouldBe("pre-start post-start pre-stop");
        Thread.Sleep(TimeSpan.FromSeconds(3));
        Undisturbed(101, pid, First);
        node.Qm("stop 101");
        node.ComesHome(First);
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

    [LabFact]
    public void What_comes_home_is_what_this_run_took_and_not_what_the_config_says_by_then() => node.Case(() =>
    {
        node.Define(101, LabNode.Passes(First));
        node.Qm("start 101");
        node.Qm($"set 101 --hostpci0 {Second.Address.Slot}");
        Vm.Run("grep -A2 PENDING /etc/pve/qemu-server/101.conf").Ok().Text.ShouldContain(Second.Address.Slot);
        node.Qm("stop 101");
        Vm.Run("cat /etc/pve/qemu-server/101.conf").Text.ShouldContain($"hostpci0: {Second.Address.Slot}");
        node.ComesHome(First);
        node.Drivers(Second).ShouldBe(LabNode.Home);
    });

    [LabFact]
    public void Of_two_vms_with_one_gpu_the_second_is_refused_by_the_firsts_name_and_the_first_is_undisturbed() => node.Case(() =>
    {
        foreach (var (has, wants) in new[] { (101, 102), (102, 101) })
        {
            node.Define(101, "name: gaming", LabNode.Passes(First));
            node.Define(102, "name: films", LabNode.Passes(First));
            node.Qm($"start {has}");
            var pid = node.Pid(has);
            LooksOnly(1, $"hook {wants} pre-start --dry-run").ShouldContain($"VM {has}");
            var refused = Vm.Run($"qm start {wants}");
            refused.ExitCode.ShouldNotBe(0);
            var log = refused.Output + refused.Errors;
            log.ShouldContain($"VM {has}");
            log.ShouldContain(has == 101 ? "gaming" : "films");
            log.ShouldContain($"hookscript error for {wants} on pre-start");
            refused.Took.ShouldBeLessThan(TimeSpan.FromSeconds(3), "at once");
            Undisturbed(has, pid, First);
            node.Qm($"stop {has}");
            node.ComesHome(First);
        }
    });

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
    public void Of_two_mapped_gpus_each_vm_gets_one_and_a_third_vm_none() => node.Case(() =>
    {
        node.Map("gpu-pool", First, Second);
        foreach (var id in new[] { 101, 102, 103 })
            node.Define(id, "hostpci0: mapping=gpu-pool");
        node.Qm("start 101");
        (node.Drivers(First), node.Drivers(Second)).ShouldBe((LabNode.Away, LabNode.Home));
        var pid = node.Pid(101);
        node.Qm("start 102");
        node.Drivers(Second).ShouldBe(LabNode.Away);
        node.QmFails("start 103").ShouldContain("pre-start");
        Undisturbed(101, pid, First);
        node.Qm("stop 101");
        node.ComesHome(First);
        node.Drivers(Second).ShouldBe(LabNode.Away);
        node.Qm("stop 102");
        node.ComesHome(Second);
    });

    [LabFact]
    public void A_vm_without_a_gpu_a_containers_hook_and_a_template_write_nothing() => node.Case(() =>
    {
        var before = Host.Picture();
        node.Define(101);
        node.Qm("start 101");
        node.Qm("stop 101");
        node.Hooks(101).ShouldBe("pre-start post-start pre-stop post-stop");
        node.HookTook(101, "pre-start").ShouldBeLessThan(TimeSpan.FromSeconds(1));
        foreach (var phase in new[] { "pre-start", "post-start", "pre-stop", "post-stop" })
            Vm.Run($"qm exec-hookscript 107 {phase}").Ok();
        node.Define(102, "template: 1", LabNode.Passes(First));
        Vm.Run("qm exec-hookscript 102 pre-start").Ok();
        Host.Picture().ShouldBe(before);
        Vm.Run("ls /var/lib/gpu-handoff").Text.ShouldNotContain("lease");
    });

    [LabFact]
    public void The_source_of_a_live_migration_hears_of_no_hook_and_has_its_gpu_back() => node.Case(() =>
    {
        node.Define(101, LabNode.Passes(First));
        node.Qm("start 101");
        node.Qm("migrate 101 other");
        node.Hooks(101).ShouldBe("pre-start post-start");
        node.ComesHome(First);
        Vm.Run("rm -r /etc/pve/nodes/other").Ok();
    });

    [LabFact]
    public void Whenever_the_task_is_ended_the_gpu_is_with_a_running_vm_or_comes_home() => node.CaseOfUsers(() =>
    {
        // To the worker alone, of which the hook hears nothing; and by the Stop button, to all of its group.
        foreach (var end in new[] { "kill -TERM $(cat /run/lab-pve/101.task)", "qm stop-task 101" })
        {
            foreach (var delay in new[] { "0.3", "1.2" })
            {
                node.Define(101, LabNode.Passes(First));
                Vm.Run($"qm start 101 & until [ -e /run/lab-pve/101.task ]; do sleep 0.02; done; sleep {delay}; {end}; wait");
                GivesBack(101);
            }
        }
    });

    [LabFact]
    public void A_task_that_is_ended_while_nvidia_lets_go_is_undone_or_brought_home() => node.CaseOfUsers(() =>
    {
        foreach (var button in new[] { false, true })
        {
            node.Define(101, LabNode.Passes(First));
            Knob("remove_hang", 3);
            var end = button ? "qm stop-task 101" : "kill -TERM $(cat /run/lab-pve/101.task)";
            var ended = Vm.Run($"qm start 101 & sleep 1.5; {end}; wait $!");
            ended.ExitCode.ShouldNotBe(0);
            (ended.Output + ended.Errors).ShouldContain("received interrupt");
            Knob("remove_hang", 0);
            var took = node.ComesHome(First);
            Evidence.Record(
                button ? "the Stop button of Proxmox's task while nvidia's remove() takes 3 s" : "SIGTERM to Proxmox's worker alone while nvidia's remove() takes 3 s",
                button ? "let the step in hand end, then rolled back, though nobody listened any more" : "ended the hand-over, and took the card home as no VM came",
                "that the task was interrupted",
                $"home {took.TotalSeconds:f0} s later");
        }
    });

    [LabFact]
    public void A_task_that_is_ended_while_the_gpu_is_on_its_way_home_leaves_it_on_its_way() => node.CaseOfUsers(() =>
    {
        foreach (var end in new[] { "kill -TERM $(cat /run/lab-pve/101.task)", "qm stop-task 101" })
        {
            node.Define(101, LabNode.Passes(First));
            node.Qm("start 101");
            Knob("probe_delay_ms", 3000);
            Vm.Run($"qm stop 101 & sleep 1.5; {end}; wait");
            Knob("probe_delay_ms", 0);
            node.ComesHome(First);
            Settled(101);
        }
    });

    /// <summary>Stops the VM if it came up in spite of all, and wants the card home.</summary>
    void GivesBack(int id)
    {
        // A QEMU that was being started when its worker ended may still come up: whoever starts it has it as a child for that long.
        Vm.Run($"""
            while pgrep -f '[s]ystemd-run.*{id}.scope|[q]emu-system.*/{id}.pid' > /dev/null && [ ! -e /run/qemu-server/{id}.pid ]; do sleep 0.1; done
            [ ! -e /run/qemu-server/{id}.pid ] || qm stop {id}
            """).Ok();
        node.ComesHome(First);
        Settled(id);
    }

    /// <summary>What it says; the machine is untouched.</summary>
    string LooksOnly(int exit, string command)
    {
        var before = Host.Picture();
        var answer = Host.Tool(exit, command);
        Host.Picture().ShouldBe(before);
        return answer.Output + answer.Errors;
    }

    void Knob(string knob, int value) => Vm.Run($"echo {value} > /sys/module/nvidia/parameters/{knob}").Ok();

    bool OpensGroup(string pid) => Vm.Run($"ls -l /proc/{pid}/fd").Ok().Text.Contains("/dev/vfio/", StringComparison.Ordinal);

    /// <summary>The VM is the same process, runs, and has its card.</summary>
    void Undisturbed(int id, string pid, PluggedGpu gpu)
    {
        node.Pid(id).ShouldBe(pid);
        node.Status(id).ShouldBe("status: running");
        Vm.Run($"qm monitor {id} query-status").Ok().Text.ShouldContain("\"running\"");
        OpensGroup(pid).ShouldBeTrue("QEMU has the group open");
        node.Drivers(gpu).ShouldBe(LabNode.Away);
    }

    /// <summary>Until Proxmox is done with the VM, too.</summary>
    void Settled(int id) => Vm.Run($"""
        for i in $(seq 300); do
            pgrep -f '[q]m cleanup {id}' > /dev/null || [ -e /run/lab-pve/{id}.task ] || exit 0
            sleep 0.1
        done
        exit 1
        """).Ok();

    void Keep(string name, LabResult result) => File.WriteAllText(Path.Combine(Vm.Evidence, name), result.ToString());
}
