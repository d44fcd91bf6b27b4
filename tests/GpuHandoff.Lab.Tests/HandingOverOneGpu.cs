namespace GpuHandoff.Lab.Tests;

/// <summary>The main job on the real modules: the only NVIDIA GPU and its audio function.</summary>
[Trait("Category", "Lab")]
public sealed class HandingOverOneGpu(OneGpu one) : IClassFixture<OneGpu>
{
    const string AllModules = "nvidia nvidia_drm nvidia_modeset nvidia_uvm";

    Host Host => one.Host;

    PluggedGpu Gpu => Host.Vm.Gpus[0];

    [LabFact]
    public void It_goes_and_comes_back_again_and_again_and_everything_is_as_before() => Host.Case(() =>
    {
        for (var round = 0; round < 3; round++)
        {
            Host.Modules().ShouldBe(AllModules);
            (Host.Driver(Gpu, 0), Host.Driver(Gpu, 1)).ShouldBe(("nvidia", "snd_hda_intel"));
            var before = Host.Picture();

            Host.Tool(0, "to_vfio");
            Host.Tool(0, "status").Text.ShouldBe($"[gpu-handoff] {Gpu.Functions[0].Address} driver=vfio-pci\n[gpu-handoff] {Gpu.Functions[1].Address} driver=vfio-pci");
            Host.Modules().ShouldBe("");
            (Host.Override(Gpu, 0), Host.Override(Gpu, 1)).ShouldBe(("vfio-pci", "vfio-pci"));
            Host.Vm.Run("ls /dev/nvidia*").ExitCode.ShouldNotBe(0, "a stale node would load the driver again");

            Host.Tool(0, "to_nvidia");
            Host.Tool(0, "status").Text.ShouldBe($"[gpu-handoff] {Gpu.Functions[0].Address} driver=nvidia\n[gpu-handoff] {Gpu.Functions[1].Address} driver=snd_hda_intel");
            (Host.Override(Gpu, 0), Host.Override(Gpu, 1)).ShouldBe(("(null)", "(null)"));
            Host.Picture().ShouldBe(before, $"round {round}");
        }
    });

    [LabFact]
    public void Twice_in_a_row_is_a_no_op_in_both_directions() => Host.Case(() =>
    {
        Host.Tool(0, "to_nvidia").Errors.ShouldContain("nothing to do");
        Host.Tool(0, "to-vfio");
        var lent = Host.Picture();
        Host.Tool(0, "handoff vfio").Errors.ShouldContain("nothing to do");
        Host.Picture().ShouldBe(lent);
        Host.Tool(0, "handoff nvidia");
        Host.Tool(0, "to_host").Errors.ShouldContain("nothing to do");
    });

    [LabFact]
    public void A_dry_run_and_a_plan_change_nothing() => Host.Case(() =>
    {
        var before = Host.Picture();
        Host.Tool(0, "to_vfio --dry-run").Text.ShouldContain("and unload nvidia");
        Host.Tool(0, "plan to_vfio").Text.ShouldContain("undo: ");
        Host.Tool(0, "plan to_vfio --json").Text.ShouldContain("\"unload-driver\"");
        Host.Picture().ShouldBe(before);
    });

    [LabFact]
    public void With_the_modules_kept_loaded_the_card_alone_goes_and_comes_back() => Host.Case(() =>
    {
        Host.Tool(0, "to_vfio --policy unbind");
        Host.Modules().ShouldBe("nvidia nvidia_modeset nvidia_uvm", "550 cannot unbind a card under nvidia_drm, so that had to go");
        (Host.Driver(Gpu, 0), Host.Driver(Gpu, 1)).ShouldBe(("vfio-pci", "vfio-pci"));
        Host.Tool(0, "to_nvidia");
    });

    [LabFact]
    public void A_held_nvidiactl_is_a_quick_refusal_that_names_the_holder() => Host.Case(() =>
    {
        var holder = Host.Vm.Start("exec -a holder sleep 600 < /dev/nvidiactl");
        Host.Vm.Run("for i in $(seq 50); do grep -q '^nvidia .* 3 ' /proc/modules && exit 0; sleep 0.1; done; exit 1").Ok();

        var refused = Host.Refused("to_vfio");
        refused.ShouldContain("sleep (/dev/nvidiactl)");
        refused.ShouldContain("[gpu-in-use]");
        Host.Tool(1, "to_vfio --quiet").Took.ShouldBeLessThan(TimeSpan.FromSeconds(5));

        holder.Kill();
        Host.Vm.Run("for i in $(seq 50); do grep -q '^nvidia .* 2 ' /proc/modules && exit 0; sleep 0.1; done; exit 1").Ok();
        Host.Tool(0, "to_vfio");
        Host.Tool(0, "to_nvidia");
    });

    [LabFact]
    public void A_held_sound_card_is_named_before_anything_is_touched() => Host.Case(() =>
    {
        var holder = Host.Vm.Start("exec sleep 600 < /dev/snd/controlC0");
        Host.Vm.Run("for i in $(seq 50); do grep -q '^snd_hda_intel .* 1 ' /proc/modules && exit 0; sleep 0.1; done; exit 1").Ok();
        Host.Refused("to_vfio").ShouldContain("sleep (/dev/snd/controlC0)");
        holder.Kill();
        Host.Vm.Run("for i in $(seq 50); do grep -q '^snd_hda_intel .* 0 ' /proc/modules && exit 0; sleep 0.1; done; exit 1").Ok();
    });

    [LabFact]
    public void An_unknown_gpu_is_refused_with_the_list_of_those_there() => Host.Case(() =>
    {
        Host.Refused("to_vfio --gpu 0b:00").ShouldContain(Gpu.Functions[0].Address.ToString());
        Host.Refused("to_vfio --gpu 1");
        Host.Refused("to_nvidia --gpu nonsense");
    });

    [LabFact]
    public void Without_vfio_pci_nothing_is_handed_over() => Host.Case(() =>
    {
        // As if this kernel had none: not loaded, and not to be found by modprobe.
        Host.Vm.Run("""
            modprobe -r vfio_pci; cd /lib/modules/$(uname -r) && find . -name 'vfio-pci.ko*' -exec mv {} /root/ \; && depmod
            """).Ok();
        try
        {
            Host.Refused("to_vfio").ShouldContain("[vfio-pci-missing]");
        }
        finally
        {
            Host.Vm.Run("mv /root/vfio-pci.ko* /lib/modules/$(uname -r)/kernel/drivers/vfio/pci/ && depmod && modprobe vfio-pci").Ok();
        }
    });

    [LabFact]
    public void Without_nvidias_module_the_card_does_not_leave_vfio_pci_for_nothing() => Host.Case(() =>
    {
        Host.Tool(0, "to_vfio");
        Host.Vm.Run("mkdir -p /root/away && cd /lib/modules/$(uname -r) && "
            + "find . -name 'nvidia.ko*' -exec cp -a --parents {} /root/away/ \\; -delete && depmod").Ok();
        try
        {
            Host.Refused("to_nvidia").ShouldContain("[host-driver-missing]");
        }
        finally
        {
            Host.Vm.Run("cp -a /root/away/. /lib/modules/$(uname -r)/ && depmod").Ok();
        }
        Host.Tool(0, "to_nvidia");
    });

    [LabFact]
    public void A_qemu_gets_the_card_and_runs_and_the_card_is_not_taken_from_it() => Host.Case(() =>
    {
        Host.Tool(0, "to_vfio");
        Host.Vm.Run(NestedQemu.StartRunning(Gpu)).Ok();
        Host.Vm.Run(NestedQemu.IsRunning).Ok().Text.ShouldContain("\"running\"");

        var refused = Host.Refused("to_nvidia --wait 1");
        refused.ShouldContain("[vm-has-the-gpu]");
        refused.ShouldContain("qemu-system-x86");
        Host.Vm.Run(NestedQemu.IsRunning).Ok().Text.ShouldContain("\"running\"");
        Host.Tool(0, "to_vfio").Errors.ShouldContain("nothing to do");

        Host.Vm.Run(NestedQemu.Stop).Ok();
        Host.Tool(0, "to_nvidia");
    });

    [LabFact]
    public void With_nouveau_loaded_first_the_card_goes_to_the_vm_and_back_to_the_host() => Host.Case(() =>
    {
        Host.Vm.Run("modprobe -r nvidia_uvm nvidia_drm nvidia_modeset nvidia && modprobe nouveau").Ok();
        var first = Host.Driver(Gpu, 0);
        Host.Tool(0, "to_vfio");
        (Host.Driver(Gpu, 0), Host.Driver(Gpu, 1)).ShouldBe(("vfio-pci", "vfio-pci"));
        Host.Tool(0, "to_nvidia");
        // Without the GSP's firmware nouveau's probe fails in the lab, and the card had no driver: then NVIDIA's is wanted.
        Host.Driver(Gpu, 0).ShouldBe(first is "" or "." ? "nvidia" : first);
        Host.Vm.Run("rmmod nouveau; modprobe nvidia; modprobe nvidia_modeset; modprobe nvidia_drm; modprobe nvidia_uvm").Ok();
    });

    [LabFact]
    public void Killed_in_the_middle_the_hand_over_can_be_finished_or_taken_back() => Host.Case(() =>
    {
        foreach (var next in new[] { "to_vfio", "to_nvidia" })
        {
            foreach (var delay in new[] { "0.15", "0.3", "0.6", "0.9" })
            {
                Host.Vm.Run($"timeout -s KILL {delay} gpu-handoff to_vfio --quiet");
                // The hand ends the call that it is in; nothing else of ours is left.
                Host.Vm.Run("for i in $(seq 50); do pgrep -f '[g]pu-handoff --hand' > /dev/null || exit 0; sleep 0.1; done; exit 1").Ok();
                Host.Tool(0, next);
                if (next == "to_vfio")
                    Host.Tool(0, "to_nvidia");
                (Host.Driver(Gpu, 0), Host.Driver(Gpu, 1)).ShouldBe(("nvidia", "snd_hda_intel"));
            }
        }
    });

    /// <summary>Makes the first step, the loading of vfio-pci, take three seconds: time enough for anybody to interfere.</summary>
    void Slowly(Action act)
    {
        Host.Vm.Run("modprobe -r vfio_pci && mkdir -p /run/modprobe.d && "
            + "echo 'install vfio_pci /bin/sleep 3; /sbin/modprobe --ignore-install vfio_pci' > /run/modprobe.d/slow.conf").Ok();
        try
        {
            act();
        }
        finally
        {
            Host.Vm.Run("rm /run/modprobe.d/slow.conf; modprobe vfio_pci").Ok();
        }
    }

    [LabFact]
    public void A_sigterm_in_the_middle_rolls_everything_back() => Host.Case(() => Slowly(() =>
    {
        var before = Host.Picture();
        var ended = Host.Vm.Run("gpu-handoff to_vfio --verbose & p=$!; sleep 1.5; kill -TERM $p; wait $p");
        ended.ExitCode.ShouldBe(3, ended.Errors);
        ended.Errors.ShouldContain("everything is as it was before");
        Host.Picture().ShouldBe(before);
    }));

    [LabFact]
    public void Two_runs_at_once_do_not_interleave() => Host.Case(() => Slowly(() =>
    {
        var both = Host.Vm.Run("gpu-handoff to_vfio & a=$!; sleep 1.5; gpu-handoff to_nvidia & b=$!; wait $a; x=$?; wait $b; exit $((x + $?))");
        both.ExitCode.ShouldBe(0, both.Errors);
        both.Errors.ShouldContain("waiting for");
        (Host.Driver(Gpu, 0), Host.Driver(Gpu, 1)).ShouldBe(("nvidia", "snd_hda_intel"));
    }));

    [LabFact]
    public void A_call_that_takes_longer_than_it_may_leaves_us_and_our_caller_free() => Host.Case(() => Slowly(() =>
    {
        // Longer than its budget: for us it is a call that never returns.
        var ended = Host.Vm.Run("""
            sed -i 's/sleep 3/sleep 120/' /run/modprobe.d/slow.conf
            gpu-handoff to_vfio --call-timeout 5 2>&1 | cat > /run/said; e=${PIPESTATUS[0]}
            cat /run/said; pgrep -f '[g]pu-handoff --hand' > /dev/null && echo the hand is left behind
            exit $e
            """, TimeSpan.FromMinutes(4));
        ended.ExitCode.ShouldBe(4, ended.Text);
        ended.Took.ShouldBeLessThan(TimeSpan.FromSeconds(5 + 2 + 3), "the budget and two seconds, and an emulated processor's start of it all");
        ended.Text.ShouldContain("modprobe vfio_pci: no answer for 5 s, since ");
        ended.Text.ShouldContain("the hand is left behind");
        Host.Refused("to_vfio").ShouldContain("[gpu-is-wedged]");
        Host.Tool(1, "to_nvidia").Took.ShouldBeLessThan(TimeSpan.FromSeconds(3), "at once, though the helper process holds the card's lock");
        Host.Tool(1, "recover --unwedge").Errors.ShouldContain("is still in: modprobe vfio_pci");

        Host.Vm.Run("pkill -KILL -x sleep; for i in $(seq 100); do pgrep -f '[g]pu-handoff --hand' > /dev/null || break; sleep 0.1; done");
        Host.Tool(0, "recover --unwedge");
        (Host.Driver(Gpu, 0), Host.Driver(Gpu, 1)).ShouldBe(("nvidia", "snd_hda_intel"));
        Host.Vm.Run("sed -i 's/sleep 120/sleep 3/' /run/modprobe.d/slow.conf").Ok();
    }));

    [LabFact]
    public void No_child_of_ours_keeps_the_callers_files_open() => Host.Case(() => Slowly(() =>
    {
        var held = Host.Vm.Run("""
            (gpu-handoff to_vfio --quiet & echo $! > /run/us; wait) 9> /run/held &
            sleep 1.5
            for p in $(pgrep -f '[g]pu-handoff --hand') $(pgrep -x sleep); do
                tr '\0' ' ' < /proc/$p/cmdline; ls -l /proc/$p/fd | grep -c /run/held
            done
            ls -l /proc/$(cat /run/us)/fd | grep -c /run/held
            wait
            """).Output;
        held.ShouldContain("--hand guard 0\n");
        held.Trim().ShouldEndWith("1", customMessage: "our own process has it, or this case shows nothing");
        Host.Tool(0, "to_nvidia");
    }));

    [LabFact]
    public void A_reader_that_goes_away_does_not_end_a_hand_over_halfway() => Host.Case(() =>
    {
        Host.Vm.Run("gpu-handoff to_vfio --verbose 2>&1 | head -c 1").Ok();
        Host.Tool(0, "to_vfio").Errors.ShouldContain("nothing to do");
        Host.Vm.Run("gpu-handoff to_nvidia --verbose 2>&1 | head -c 1").Ok();
        Host.Tool(0, "to_nvidia").Errors.ShouldContain("nothing to do");
    });

    [LabFact]
    public void Without_root_one_may_look_and_not_touch() => Host.Case(() =>
    {
        const string asNobody = "setpriv --reuid=65534 --regid=65534 --clear-groups gpu-handoff";
        Host.Vm.Run($"{asNobody} status").Ok().Text.ShouldContain("driver=nvidia");
        Host.Vm.Run($"{asNobody} status --verbose").Ok().Text.ShouldContain("RTX 4090");
        var refused = Host.Vm.Run($"{asNobody} to_vfio");
        refused.ExitCode.ShouldBe(1);
        refused.Errors.ShouldContain("only root can hand a GPU over");
    });
}
