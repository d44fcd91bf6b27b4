namespace GpuHandoff.Lab.Tests;

/// <summary>The host's console, where it is on the card that goes, and where it is on another one.</summary>
[Trait("Category", "Lab")]
[Collection(HostAtWork.Collection)]
public sealed class TheConsole(HostAtWork work)
{
    Host Host => work.Host;

    LabVm Vm => work.Vm;

    [LabFact]
    public void The_screen_goes_dark_with_its_card_and_shows_the_console_again_when_the_card_is_back() => work.Case(() =>
    {
        var before = HostAtWork.Screen(Vm, "console-0-before");
        before.IsBlank().ShouldBeFalse();
        foreach (var time in new[] { 1, 2 })
        {
            Host.Tool(0, $"to_vfio --gpu {Vm.Display}");
            Vm.Screendump($"console-{time}-away").IsBlank().ShouldBeTrue();
            Consoles().ShouldNotContain("frame buffer");
            Host.Tool(0, $"to_nvidia --gpu {Vm.Display}");
            HostAtWork.Screen(Vm, $"console-{time}-back").ShowsTheSameAs(before).ShouldBeTrue();
            Consoles().ShouldContain("frame buffer device 1");
        }
        HostAtWork.ShowsWhatIsWritten(Vm, "console-3-written").ShouldBeTrue();
    });

    [LabFact]
    public void What_was_done_stands_on_the_disk_and_in_the_systems_journal_when_the_screen_is_dark() => work.Case(() =>
    {
        Vm.Run("rm -f /var/log/gpu-handoff.log").Ok();
        Host.Tool(0, $"to_vfio --gpu {Vm.Display}");
        var (log, journal) = (Vm.Run("cat /var/log/gpu-handoff.log").Ok().Text, Vm.Run("journalctl --quiet --boot --output=cat SYSLOG_IDENTIFIER=gpu-handoff").Ok().Text);
        Host.Tool(0, $"to_nvidia --gpu {Vm.Display}");
        foreach (var kept in new[] { log, journal })
        {
            kept.ShouldContain("frame buffer");
            kept.ShouldContain($"{Vm.Display}: bochs-drm → vfio-pci");
        }
        Vm.Run("stat -c '%a %U' /var/log/gpu-handoff.log").Ok().Text.ShouldBe("600 root");
    });

    [LabFact]
    public void A_console_on_another_card_is_not_touched_while_the_gpu_goes_and_comes() => work.Case(() =>
    {
        var before = HostAtWork.Screen(Vm, "other-0-before");
        var consoles = Consoles();
        consoles.ShouldContain("frame buffer device 1");
        Vm.Run("dmesg --clear").Ok();
        foreach (var way in new[] { "unload", "unbind" })
        {
            Host.Tool(0, $"to_vfio --gpu {work.Gpu.Address} --policy {way}");
            HostAtWork.Screen(Vm, $"other-1-away-{way}").Difference(before).ShouldBeNull();
            Consoles().ShouldBe(consoles);
            Host.Tool(0, $"to_nvidia --gpu {work.Gpu.Address}");
            HostAtWork.Screen(Vm, $"other-2-back-{way}").Difference(before).ShouldBeNull();
            Consoles().ShouldBe(consoles);
        }
        Vm.Run("dmesg").Text.ShouldNotContain("Console: switching");
        HostAtWork.ShowsWhatIsWritten(Vm, "other-3-written").ShouldBeTrue();
    });

    [LabFact]
    public void A_run_that_is_killed_at_any_step_gives_the_console_back() => work.Case(() =>
    {
        var before = HostAtWork.Screen(Vm, "killed-0-before");
        // Each step as the run's log announces it; the last one is the one that makes the screen dark.
        foreach (var step in new[] { "… load vfio_pci", $"… {Vm.Display}: bochs-drm", $"… {Vm.Display}: bochs-drm" })
        {
            Vm.Run("[ ! -e /sys/module/vfio_pci ] || rmmod vfio_pci").Ok();
            KilledRun.At(Host, step, $"to_vfio --gpu {Vm.Display}");
            Host.Tool(0, "recover");
            Consoles().ShouldContain("frame buffer device 1", customMessage: $"killed at {step}");
            Host.Tool(0, $"to_nvidia --gpu {Vm.Display}");
            // The vtconsole itself: a picture alone may be what is left in the card's memory.
            Consoles().ShouldContain("frame buffer device 1", customMessage: $"killed at {step}");
            HostAtWork.Screen(Vm, "killed-back").ShowsTheSameAs(before).ShouldBeTrue();
        }
        HostAtWork.ShowsWhatIsWritten(Vm, "killed-written").ShouldBeTrue();
    });

    [LabFact]
    public void After_a_boot_in_vga_text_mode_the_kernel_binds_no_console_by_hand_but_with_the_next_frame_buffer() => work.Case(() =>
    {
        Consoles().ShouldContain("(M) dummy device 0");
        Consoles().ShouldNotContain("(S)");
        Vm.Run("for c in /sys/class/vtconsole/*; do ! grep -q frame $c/name || { echo 0 > $c/bind; echo 1 > $c/bind; }; done").Ok();
        Consoles().ShouldContain("frame buffer device 0");
        Vm.Run($"d=$(readlink -f /sys/bus/pci/devices/{Vm.Display}/driver); echo {Vm.Display} > $d/unbind; echo {Vm.Display} > $d/bind").Ok();
        Consoles().ShouldContain("frame buffer device 1");
    });

    /// <summary>What the kernel has for consoles, each with 1 where it is bound.</summary>
    string Consoles() => Vm.Run("for c in /sys/class/vtconsole/*; do echo \"$(cat $c/name) $(cat $c/bind)\"; done | sort").Ok().Text;
}
