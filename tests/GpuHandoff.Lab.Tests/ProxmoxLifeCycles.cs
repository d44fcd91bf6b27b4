namespace GpuHandoff.Lab.Tests;

/// <summary>
/// From VM start to VM stop, in the order in which Proxmox does it. After each case, here and in the other classes of the node,
/// every GPU is at home, modules and drivers are as before, vfio-pci's new_id is empty, and no lease, journal or reservation is left.
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
    public void A_vm_gets_its_gpu_and_the_processors_of_the_policy_when_it_starts_and_the_host_has_the_gpu_again_when_it_has_stopped() => node.Case(() =>
    {
        node.Policy("pin:\n  vcpus: \"1,0\"\n  emulator: \"1\"");
        foreach (var (way, more) in new[] { ("new clean-up", ""), ("legacy clean-up", ",driver=keep") })
        {
            if (way == "legacy clean-up")
                Vm.Run("touch /run/qemu-server/force-legacy-cleanup").Ok();
            node.Define(101, "name: gaming", LabNode.Passes(First, more: more));
            if (way == "new clean-up")
                node.LooksOnly(0, "hook 101 pre-start --dry-run").ShouldContain("vfio-pci");
            var started = node.Qm("start 101");
            node.Drivers(First).ShouldBe(LabNode.Away);
            node.Drivers(Second).ShouldBe(LabNode.Home);
            node.Hooks(101).ShouldEndWith("pre-start post-start");
            node.OpensGroup(node.Pid(101)).ShouldBeTrue("QEMU has the group open");
            var leases = node.Leases();
            leases.ShouldContain("101");
            leases.ShouldContain(First.Address.ToString());
            leases.ShouldContain(node.Pid(101));
            node.Leases().ShouldNotContain(Second.Address.ToString());
            Keep($"start-{way}.txt", started);
            RunsWhereItIsPinned();

            Keep($"stop-{way}.txt", node.Qm("stop 101"));
            node.ComesHome(First);
            // Legacy: the task is over before post-stop.
            Vm.Run("for i in $(seq 100); do grep -q post-stop /run/lab-pve/hooks && exit; sleep 0.1; done; exit 1").Ok();
            node.Hooks(101).ShouldBe("pre-start post-start pre-stop post-stop");
            Vm.Run("rm /run/lab-pve/hooks").Ok();
        }
    });

    [LabFact]
    public void A_shutdown_that_times_out_leaves_vm_and_gpu_alone_and_what_comes_home_is_not_what_the_config_says_by_then() => node.Case(() =>
    {
        // Nobody listens to the power button.
        node.Define(101, LabNode.Passes(First), "ide0: none");
        node.Qm("start 101");
        var pid = node.Pid(101);
        node.QmFails("shutdown 101 --timeout 2").ShouldContain("got timeout");
        node.Hooks(101).ShouldBe("pre-start post-start pre-stop");
        Thread.Sleep(TimeSpan.FromSeconds(3));
        node.Undisturbed(101, pid, First);

        node.Qm($"set 101 --hostpci0 {Second.Address.Slot}");
        Vm.Run("grep -A2 PENDING /etc/pve/qemu-server/101.conf").Ok().Text.ShouldContain(Second.Address.Slot);
        node.Qm("stop 101");
        Vm.Run("cat /etc/pve/qemu-server/101.conf").Text.ShouldContain($"hostpci0: {Second.Address.Slot}");
        node.ComesHome(First);
        node.Drivers(Second).ShouldBe(LabNode.Home);
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
            node.Settled(101);
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
        node.Undisturbed(101, pid, First);
        node.Qm("stop 101");
        node.ComesHome(First);
        node.Settled(101);
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

    void RunsWhereItIsPinned()
    {
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
    }

    void Keep(string name, LabResult result) => File.WriteAllText(Path.Combine(Vm.Evidence, name), result.ToString());
}
