namespace GpuHandoff.Lab.Tests;

/// <summary>The run itself is stopped, killed or disturbed, while the driver dawdles.</summary>
[Trait("Category", "Lab")]
[Collection(FaultyGpu.Collection)]
public sealed class FaultsOfTheRun(FaultyGpu faulty)
{
    Host Host => faulty.Host;

    LabVm Vm => faulty.Vm;

    [LabFact]
    public void A_sigterm_while_the_driver_lets_go_rolls_back_when_it_has() => faulty.Case(() =>
    {
        var before = Host.Picture();
        faulty.Set("remove_hang", 3);
        var ended = Vm.Run("gpu-handoff to_vfio --policy unload & p=$!; sleep 1.5; kill -TERM $p; wait $p");
        ended.ExitCode.ShouldBe(3, ended.Errors);
        ended.Errors.ShouldContain("everything is as it was before");
        ended.Took.ShouldBeGreaterThan(TimeSpan.FromSeconds(3), "a remove() that was begun cannot be called off");
        Host.Picture().ShouldBe(before);
        Evidence.Record(
            "SIGTERM while nvidia's remove() takes 3 s",
            "let the step in hand end, then rolled back (exit 3)",
            "that it was interrupted, each undo, and that everything is as before",
            $"{ended.Took.TotalSeconds:f0} s in all");
    });

    [LabFact]
    public void The_helper_process_is_killed_in_the_middle_of_a_call() => faulty.Case(() =>
    {
        var before = Host.Picture();
        faulty.Set("remove_hang", 3);
        var ended = Vm.Run("gpu-handoff to_vfio --policy unload & p=$!; sleep 1.5; pkill -KILL -f '[g]pu-handoff --hand'; wait $p");
        ended.ExitCode.ShouldBe(3, ended.Errors);
        ended.Errors.ShouldContain("everything is as it was before");
        Host.Picture().ShouldBe(before);
        Evidence.Record(
            "SIGKILL to the helper process (by the OOM killer, say) while it is in a call",
            "rolled back with a new helper (exit 3)",
            "that the helper process has ended, each undo, and that everything is as before");
    });

    [LabFact]
    public void Killed_while_the_driver_lets_go_or_takes_the_card_it_is_recovered_to_the_host() => faulty.Case(() =>
    {
        foreach (var way in new[] { "unload", "unbind" })
        {
            faulty.Set("remove_hang", 3);
            KillInTheMiddle($"to_vfio --policy {way}");
            faulty.KernelLog().ShouldContain("Attempting to remove");
            Recovered();

            faulty.Set("remove_hang", 0);
            Host.Tool(0, $"to_vfio --policy {way}");
            faulty.SetAtLoad("probe_delay_ms=3000");
            if (way == "unbind")
                faulty.Set("probe_delay_ms", 3000);
            KillInTheMiddle("to_nvidia");
            Recovered();
            Vm.Run("rm /run/modprobe.d/faults.conf").Ok();
            faulty.Set("probe_delay_ms", 0);
        }
        Evidence.Record(
            "SIGKILL while nvidia's remove() or its probe takes 3 s, with unload and with unbind",
            "recover waited for that call's end and brought the card to the host",
            "that an earlier run was brought to its end; overrides clean, journal closed");
    });

    [LabFact]
    public void Killed_at_any_time_and_left_alone_it_is_recovered_by_its_guard() => faulty.Case(() =>
    {
        var slowest = TimeSpan.Zero;
        foreach (var run in new[] { "to_vfio --policy unbind", "to_vfio --policy unload", "to_nvidia" })
        {
            foreach (var delay in new[] { "0.12", "0.2", "0.28", "0.36" })
            {
                if (run == "to_nvidia")
                    Host.Tool(0, "to_vfio --quiet");
                Vm.Run($"timeout -s KILL {delay} gpu-handoff {run} --quiet");
                var settled = faulty.Settle();
                slowest = settled > slowest ? settled : slowest;
                Host.Tool(0, "recover --no-wait").Errors.ShouldContain("no run was left unfinished");
                // Killed before its first step or after its last one it is at the other end, and whole.
                faulty.Drivers().ShouldBeOneOf("nvidia snd_hda_intel", "vfio-pci vfio-pci");
                Host.Tool(0, "to_nvidia --quiet");
                faulty.Drivers().ShouldBe("nvidia snd_hda_intel");
                faulty.Overrides().ShouldBe("(null) (null)");
            }
        }
        Evidence.Record(
            "SIGKILL at twelve moments of a hand-over, and nobody runs anything afterwards",
            "the guard of the killed run started recover: handed over completely, or back on the host",
            "nothing but the GPU in its place, and lines in the system's journal",
            $"settled within {slowest.TotalSeconds:f0} s");
    });

    [LabFact]
    public void A_power_cut_in_the_middle_leaves_nothing_but_a_journal_that_tells_of_it() => faulty.Case(() =>
    {
        faulty.Set("remove_hang", -1);
        Vm.Start("gpu-handoff to_vfio --policy unbind");
        Vm.Run("for i in $(seq 50); do dmesg | tail -5 | grep -q 'Attempting to remove' && exit 0; sleep 0.1; done; exit 1").Ok();
        // The guest's file system has no journal, and nobody checks it: what is half on disk at the cut is garbage later.
        Vm.Run("sync").Ok();
        Vm.Reboot(crash: true);
        Host.Furnish();
        Vm.Run("ls -A /var/lib/gpu-handoff").Ok().Text.ShouldContain("journal");
        Host.Tool(0, "recover");
        Host.Tool(0, "recover").Errors.ShouldContain("no run was left unfinished");
        Host.Tool(0, "to_vfio");
        Host.Tool(0, "to_nvidia");
        Evidence.Record(
            "the power is cut while nvidia's remove() hangs",
            "recover closed the journal of the other boot; a hand-over and its return went as ever",
            "nothing to do");
    });

    [LabFact]
    public void A_vm_that_has_the_card_is_waited_for_up_to_a_limit_and_no_unbind_is_begun() => faulty.Case(() =>
    {
        Host.Tool(0, "to_vfio");
        Vm.Run(NestedQemu.Start(faulty.Gpu)).Ok();
        var lent = Host.Picture();
        var refused = Host.Tool(1, "to_nvidia --wait 3");
        refused.Took.ShouldBeInRange(TimeSpan.FromSeconds(3), TimeSpan.FromSeconds(5));
        refused.Errors.ShouldContain("[vm-has-the-gpu]");
        refused.Errors.ShouldContain("qemu-system-x86");
        Host.Picture().ShouldBe(lent);
        faulty.KernelLog().ShouldNotContain("Relaying device request");

        var run = Vm.Start("gpu-handoff to_nvidia --wait 60");
        Vm.Run($"sleep 3; {NestedQemu.Stop}").Ok();
        var done = run.Wait(TimeSpan.FromMinutes(2));
        done.ExitCode.ShouldBe(0, done.Errors);
        done.Errors.ShouldContain("waiting for a VM to let go");
        faulty.KernelLog().ShouldNotContain("Relaying device request");
        Evidence.Record(
            "a VM still has the card when it is to come back",
            "waited for it as long as --wait says, then refused before any write (exit 1); a VM that ended in time: done (exit 0)",
            "the VM's process, and that the run waits for it",
            $"refused after {refused.Took.TotalSeconds:f1} s with --wait 3");
    });

    [LabFact]
    public void Fifty_round_trips_beside_a_poller_leave_nothing_behind() => faulty.Case(() =>
    {
        const string look = """
            pgrep -c gpu-handoff; cut -d' ' -f1,3 /proc/modules | grep -E '^(nvidia|vfio|snd_hda_intel)' | sort
            systemctl list-units --state=active,failed --no-legend --plain 'nvidia*' 'gpu-handoff*'
            ls -A /run/gpu-handoff /var/lib/gpu-handoff 2>/dev/null
            """;
        // One round trip first: what it leaves by intention is no leak.
        Host.Tool(0, "to_vfio --quiet");
        Host.Tool(0, "to_nvidia --quiet");
        var before = Vm.Run(look).Output;
        var open = OpenFiles();
        var poller = Vm.Start("while :; do { sleep 0.1 < /dev/nvidia0; : < /dev/nvidiactl; } 2> /dev/null; sleep 0.4; done");
        var run = Vm.Run("""
            go() { gpu-handoff "$@" > /run/said 2>&1; code=$?; }
            drivers() { for f in /sys/bus/pci/devices/0000:01:00.*; do readlink $f/driver; cat $f/driver_override; done; }
            done=0 refused=0 other=0 changed=0
            while [ $done -lt 50 ] && [ $((done + refused + other)) -lt 400 ]; do
                if [ $((done % 2)) = 0 ]; then way=unload; else way=unbind; fi
                was=$(drivers)
                go to_vfio --policy $way
                case $code in
                    0) go to_nvidia; if [ $code = 0 ]; then done=$((done + 1)); else other=$((other + 1)); echo "back: $code"; cat /run/said; fi ;;
                    1) refused=$((refused + 1)); [ "$(drivers)" = "$was" ] || changed=$((changed + 1)) ;;
                    *) other=$((other + 1)); echo "out by $way: $code"; cat /run/said; [ "$(drivers)" = "$was" ] || changed=$((changed + 1)) ;;
                esac
            done >&2
            echo $done $refused $other $changed
            """, TimeSpan.FromMinutes(6));
        poller.Kill();
        var tally = run.Ok().Text.Split(' ').Select(int.Parse).ToArray();
        var (done, refused, other, changed) = (tally[0], tally[1], tally[2], tally[3]);
        (done, other, changed).ShouldBe((50, 0, 0), $"refused: {refused}\n{run.Errors}");

        Vm.Run("for i in $(seq 50); do grep -q '^nvidia .* 0 ' /proc/modules && exit 0; sleep 0.1; done; exit 1").Ok();
        Vm.Run(look).Output.ShouldBe(before);
        OpenFiles().ShouldBeInRange(open - 64, open + 64);
        Evidence.Record(
            "50 round trips, by unload and unbind in turn, while a poller opens the card's nodes every half second",
            "each went there and back, or was refused with nothing changed; no reference, override, file or process stayed behind",
            "a refusal that names the poller, where it had the card open at that moment",
            $"{done} round trips, {refused} refusals, {run.Took.TotalSeconds:f0} s");
    });

    /// <summary>Kills the run and not its helper process, which is in a call that takes three seconds.</summary>
    void KillInTheMiddle(string run)
    {
        var killed = Vm.Run($"timeout -s KILL 1.5 gpu-handoff {run} --quiet");
        killed.ExitCode.ShouldBe(137);
        killed.Took.ShouldBeLessThan(TimeSpan.FromSeconds(2.5));
    }

    void Recovered()
    {
        Host.Tool(0, "recover");
        faulty.Settle();
        Host.Tool(0, "recover").Errors.ShouldContain("no run was left unfinished");
        faulty.Drivers().ShouldBe("nvidia snd_hda_intel");
        faulty.Overrides().ShouldBe("(null) (null)");
    }

    int OpenFiles() => int.Parse(Vm.Run("cut -f1 /proc/sys/fs/file-nr").Ok().Text);
}
