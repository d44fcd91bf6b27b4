namespace GpuHandoff.Lab.Tests;

/// <summary>The driver is in use, hangs, fails or dawdles: what a real kernel does then, and what we make of it.</summary>
[Trait("Category", "Lab")]
[Collection(FaultyGpu.Collection)]
public sealed class FaultsOfTheDriver(FaultyGpu faulty)
{
    static readonly string[] _bothWays = ["unload", "unbind"];

    Host Host => faulty.Host;

    LabVm Vm => faulty.Vm;

    [LabFact]
    public void A_card_in_use_is_refused_and_its_user_is_named() => faulty.Case(() =>
    {
        var (holder, pid) = faulty.Holds("/dev/nvidia0");
        var slowest = TimeSpan.Zero;
        foreach (var way in _bothWays)
        {
            var refused = Host.Refused($"to_vfio --policy {way}");
            refused.ShouldContain("[gpu-in-use]");
            refused.ShouldContain($"{pid} sleep");
            refused.ShouldContain("/dev/nvidia0");
            var again = Host.Tool(1, $"to_vfio --quiet --policy {way}").Took;
            slowest = again > slowest ? again : slowest;
        }
        faulty.KernelLog().ShouldNotContain("Attempting to remove");
        slowest.ShouldBeLessThan(TimeSpan.FromSeconds(3));

        holder.Kill();
        Host.Tool(0, "to_vfio --policy unbind");
        Host.Tool(0, "to_nvidia");
        Evidence.Record(
            "a process has /dev/nvidia0 open, so that an unbind would never end",
            "refused before any write, with unload and with unbind",
            "the process's number and name, and the node",
            $"refused within {slowest.TotalSeconds:f1} s");
    });

    [LabFact]
    public void A_user_that_no_process_shows_is_noticed_by_what_the_kernel_counts() => faulty.Case(() =>
    {
        faulty.Set("hidden_user", 1);
        Host.Refused("to_vfio --policy unbind").ShouldContain("1 interrupts for 0000:01:00.0");
        Host.Refused("to_vfio --policy unload").ShouldContain("module nvidia");
        faulty.KernelLog().ShouldNotContain("Attempting to remove");
        faulty.Set("hidden_user", 0);
        Host.Tool(0, "to_vfio");
        Host.Tool(0, "to_nvidia");
        Evidence.Record(
            "the card is in use, and no process shows it (a kernel client, a descriptor in flight)",
            "refused before any write: the card has interrupts, the module has users",
            "that the card is in use by somebody who hides");
    });

    [LabFact]
    public void Persistence_mode_keeps_a_card_from_being_unbound_and_not_from_being_unloaded() => faulty.Case(() =>
    {
        faulty.Set("persistence", 1);
        Host.Refused("to_vfio --policy unbind").ShouldContain("persistence mode");
        Host.Tool(0, "to_vfio --policy unload");
        Host.Tool(0, "to_nvidia");
        Evidence.Record(
            "the kernel's persistence mode is on, and nobody has the card open",
            "unbind: refused, as it looks like a hidden user; unload: done",
            "that persistence mode may be the reason, and how to switch it off");
    });

    [LabFact]
    public void An_open_i2c_adapter_of_the_card_is_named_before_the_kernel_waits_for_it() => faulty.Case(() =>
    {
        Vm.Run("rmmod nvidia && modprobe nvidia i2c=1 && modprobe i2c-dev && udevadm settle").Ok();
        var node = Vm.Run("echo /dev/$(basename /sys/bus/pci/devices/0000:01:00.0/i2c-*)").Ok().Text;
        var (holder, pid) = faulty.Holds(node);
        var refused = Host.Refused("to_vfio --policy unbind");
        refused.ShouldContain($"{pid} sleep");
        refused.ShouldContain(node);
        Host.Refused("to_vfio --policy unload").ShouldContain("[gpu-in-use]");
        holder.Kill();
        Host.Tool(0, "to_vfio --policy unbind");
        Host.Tool(0, "to_nvidia");
        Vm.Run("rmmod nvidia i2c_dev && modprobe nvidia").Ok();
        Evidence.Record(
            "a process has the card's I2C adapter open (ddcutil, OpenRGB), for which an unbind waits uninterruptibly",
            "refused before any write",
            "the process's number and name, and /dev/i2c-N");
    });

    [LabFact]
    public void A_user_that_comes_while_the_plan_runs_is_noticed_before_the_unbind() => faulty.Case(() =>
    {
        foreach (var way in _bothWays)
        {
            var before = Host.Picture();
            Vm.Run("modprobe -r vfio_pci && mkdir -p /run/modprobe.d && "
                + "echo 'install vfio_pci /bin/sleep 3; /sbin/modprobe --ignore-install vfio_pci' > /run/modprobe.d/slow.conf").Ok();
            var run = Vm.Start($"gpu-handoff to_vfio --policy {way}");
            // The plan is made; its first step takes three seconds.
            Vm.Run("for i in $(seq 100); do pgrep -x -f '/bin/sleep 3' > /dev/null && exit 0; sleep 0.05; done; exit 1").Ok();
            var (holder, _) = faulty.Holds("/dev/nvidia0");
            var ended = run.Wait(TimeSpan.FromMinutes(1));
            Vm.Run("rm /run/modprobe.d/slow.conf; modprobe vfio_pci").Ok();
            holder.Kill();

            ended.ExitCode.ShouldBe(3, ended.Errors);
            ended.Errors.ShouldContain("everything is as it was before");
            faulty.KernelLog().ShouldNotContain("Attempting to remove");
            Vm.Run("for i in $(seq 50); do grep -q '^nvidia .* 0 ' /proc/modules && exit 0; sleep 0.1; done; exit 1").Ok();
            Host.Picture().ShouldBe(before, way);
        }
        Evidence.Record(
            "somebody opens the card after the plan was made and before nvidia lets go",
            "looked once more, unbound nothing, rolled back (exit 3)",
            "that the card is in use now, and that everything is as before");
    });

    [LabFact]
    public void A_driver_that_takes_its_time_to_let_go_is_waited_for() => faulty.Case(() =>
    {
        foreach (var way in _bothWays)
        {
            faulty.Set("remove_hang", 3);
            var done = Host.Tool(0, $"to_vfio --policy {way}");
            done.Took.ShouldBeGreaterThan(TimeSpan.FromSeconds(3));
            faulty.KernelLog().ShouldContain("Continuing with GPU removal");
            Host.Tool(0, "to_nvidia");
        }
        Evidence.Record(
            "nvidia's remove() takes 3 s, within the budget of the call",
            "waited, and went on (exit 0)",
            "how long the step took");
    });

    [LabFact]
    public void A_driver_that_takes_its_time_to_take_the_card_is_waited_for() => faulty.Case(() =>
    {
        foreach (var way in _bothWays)
        {
            Host.Tool(0, $"to_vfio --policy {way}");
            faulty.SetAtLoad("probe_delay_ms=5000");
            if (way == "unbind")
                faulty.Set("probe_delay_ms", 5000);
            var done = Host.Tool(0, "to_nvidia");
            done.Took.ShouldBeGreaterThan(TimeSpan.FromSeconds(5));
            done.Errors.ShouldContain("(5.", customMessage: "how long it took stands behind the step");
            faulty.Drivers().ShouldBe("nvidia snd_hda_intel");
            faulty.Set("probe_delay_ms", 0);
        }
        Evidence.Record(
            "nvidia's probe takes 5 s on the way back",
            "waited, and went on (exit 0)",
            "how long the step took");
    });

    [LabFact]
    public void A_driver_that_never_lets_go_costs_the_budget_of_one_call_and_no_more() => faulty.Case(() =>
    {
        var figures = new List<string>();
        foreach (var way in _bothWays)
        {
            faulty.Set("remove_hang", -1);
            // Through a pipe: whoever reads us to our end shall not wait for the hand that is left behind.
            var stuck = Vm.Run($$"""
                gpu-handoff to_vfio --policy {{way}} --call-timeout 5 2>&1 | cat > /run/said; e=${PIPESTATUS[0]}
                cat /run/said; exit $e
                """);
            stuck.ExitCode.ShouldBe(4, stuck.Text);
            stuck.Took.ShouldBeInRange(TimeSpan.FromSeconds(5), TimeSpan.FromSeconds(7));
            stuck.Text.ShouldContain(way == "unbind" ? "/sys/bus/pci/drivers/nvidia/unbind" : "delete_module nvidia");
            stuck.Text.ShouldContain("no answer for 5 s, since ");
            stuck.Text.ShouldContain("not undone: 0000:01:00.1: snd_hda_intel → vfio-pci");
            stuck.Text.ShouldContain("reboot the host");
            Vm.Run("pgrep -f '[g]pu-handoff --hand'").Ok();

            foreach (var again in new[] { "to_vfio", "to_vfio --policy unbind", "to_nvidia" })
            {
                var refused = Host.Refused(again);
                refused.ShouldContain("[gpu-is-wedged]");
                refused.ShouldContain("reboot the host");
            }
            var quick = Host.Tool(1, "to_nvidia --quiet").Took;
            quick.ShouldBeLessThan(TimeSpan.FromSeconds(2));
            Host.Tool(0, "status").Took.ShouldBeLessThan(TimeSpan.FromSeconds(2));
            Host.Tool(1, "recover --unwedge").Errors.ShouldContain("still");
            figures.Add($"{way}: exit 4 after {stuck.Took.TotalSeconds:f1} s with a budget of 5 s, the next run refused within {quick.TotalSeconds:f1} s");

            // What no real driver does: it lets go after all. Then the mark can be taken off, and the rest is taken back.
            faulty.Set("remove_hang", 0);
            faulty.Settle();
            Host.Tool(0, "recover --unwedge");
            faulty.Drivers().ShouldBe("nvidia snd_hda_intel");
            faulty.Overrides().ShouldBe("(null) (null)");
        }
        Evidence.Record(
            "nvidia's remove() never returns",
            "ended with exit 4 and left the call behind; every later run refused at once, without a write",
            "the call, since when, the process in it, what was not undone, and that a reboot is needed",
            string.Join("; ", figures));
    });

    [LabFact]
    public void A_probe_that_fails_once_is_tried_again() => faulty.Case(() =>
    {
        Host.Tool(0, "to_vfio --policy unbind");
        faulty.Set("probe_fail", 1);
        var back = Host.Tool(0, "to_nvidia");
        faulty.KernelLog().ShouldContain("probe with driver nvidia failed with error -1");
        faulty.Drivers().ShouldBe("nvidia snd_hda_intel");
        faulty.Overrides().ShouldBe("(null) (null)");
        var unbound = back.Took;

        // With the module unloaded each load counts anew: the first one alone gets the fault.
        Host.Tool(0, "to_vfio --policy unload");
        Vm.Run("""
            cat > /run/modprobe.d/faults.conf <<'END'
            install nvidia if mkdir /run/failed-once 2> /dev/null; then /sbin/modprobe --ignore-install nvidia probe_fail=1; else /sbin/modprobe --ignore-install nvidia; fi
            END
            """).Ok();
        back = Host.Tool(0, "to_nvidia");
        Vm.Run("rmdir /run/failed-once").Ok();
        faulty.Drivers().ShouldBe("nvidia snd_hda_intel");
        faulty.Overrides().ShouldBe("(null) (null)");
        Evidence.Record(
            "nvidia's probe fails once on the way back",
            "tried again, and the card is on nvidia (exit 0)",
            "which try it took",
            $"{unbound.TotalSeconds:f0} s by bind, {back.Took.TotalSeconds:f0} s by loading the module");
    });

    [LabFact]
    public void A_probe_that_always_fails_leaves_the_card_where_it_was() => faulty.Case(() =>
    {
        foreach (var way in _bothWays)
        {
            Host.Tool(0, $"to_vfio --policy {way}");
            var lent = Host.Picture();
            faulty.SetAtLoad("probe_fail=-1");
            if (way == "unbind")
                faulty.Set("probe_fail", -1);
            var failed = Host.Tool(3, "to_nvidia");
            failed.Errors.ShouldContain("everything is as it was before");
            Host.Picture().ShouldBe(lent, way);
            faulty.Drivers().ShouldBe("vfio-pci vfio-pci");

            Vm.Run("rm /run/modprobe.d/faults.conf").Ok();
            if (way == "unbind")
                faulty.Set("probe_fail", 0);
            Host.Tool(0, "to_nvidia");
        }
        Evidence.Record(
            "nvidia's probe fails always on the way back",
            "put the card back on vfio-pci (exit 3); the next run, with the driver mended, took it home",
            "the kernel's reason, and that everything is as before");
    });

    [LabFact]
    public void A_module_that_cannot_be_unloaded_is_refused_and_the_card_goes_by_unbind() => faulty.Case(() =>
    {
        faulty.Set("pin", 1);
        Host.Refused("to_vfio --policy unload").ShouldContain("module nvidia");
        Host.Tool(0, "to_vfio --policy unbind");
        Host.Tool(0, "to_nvidia");
        Evidence.Record(
            "the module nvidia cannot be unloaded (somebody holds a reference)",
            "unload: refused before any write; unbind: done, and back",
            "that the module has users that are no modules");
    });
}
