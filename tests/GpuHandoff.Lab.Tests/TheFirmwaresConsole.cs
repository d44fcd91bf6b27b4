namespace GpuHandoff.Lab.Tests;

/// <summary>A host that UEFI has started: its first console is the firmware's framebuffer.</summary>
[Trait("Category", "Lab")]
public sealed class TheFirmwaresConsole
{
    [LabFact]
    public void A_firmware_framebuffer_is_given_away_with_consent_only_and_does_not_come_back()
    {
        using var host = Boot("ovmf");
        var (vm, card) = (host.Vm, host.Vm.Display);
        vm.Case(() =>
        {
            FrameBuffers(vm).ShouldBe("EFI VGA");
            var before = HostAtWork.Screen(vm, "firmware-0-before");
            before.IsBlank().ShouldBeFalse();

            var refused = host.Refused($"to_vfio --gpu {card}");
            refused.ShouldContain("[console-would-be-lost]");
            refused.ShouldContain("--lose-console");
            HostAtWork.Screen(vm, "firmware-1-refused").ShowsTheSameAs(before).ShouldBeTrue();
            HostAtWork.ShowsWhatIsWritten(vm, "firmware-2-refused-written").ShouldBeTrue();

            host.Tool(0, $"to_vfio --gpu {card} --lose-console");
            FrameBuffers(vm).ShouldBe("");
            // A real card's picture ends with its power. QEMU's has no power management, and shows what is left in its memory.
            var frozen = HostAtWork.Screen(vm, "firmware-3-away");
            vm.Run("printf '\\n\\nnobody sees this' > /dev/tty1; sleep 0.3").Ok();
            vm.Screendump("firmware-4-away-written").Difference(frozen).ShouldBeNull();

            var back = host.Tool(0, $"to_nvidia --gpu {card}");
            back.Errors.ShouldContain("the text console does not come back before the next boot: it was the firmware's");
            FrameBuffers(vm).ShouldBe("");
            vm.Run("ls /sys/bus/platform/drivers/efi-framebuffer").Ok().Text.ShouldNotContain("efi-framebuffer.0");

            // What is lost already needs no consent.
            host.Tool(0, $"to_vfio --gpu {card}");
            host.Tool(0, $"to_nvidia --gpu {card}");
        });
    }

    [LabFact]
    public void A_driver_that_took_the_screen_from_the_firmware_brings_the_console_back()
    {
        using var host = Boot("ovmf-driver");
        var (vm, card) = (host.Vm, host.Vm.Display);
        vm.Case(() =>
        {
            FrameBuffers(vm).ShouldBe("EFI VGA");
            vm.Run("modprobe bochs && udevadm settle").Ok();
            FrameBuffers(vm).ShouldBe("bochs-drmdrmfb");
            vm.Run("systemctl restart getty@tty1.service").Ok();
            var before = HostAtWork.Screen(vm, "driver-0-before");
            before.IsBlank().ShouldBeFalse();
            var home = host.Picture();
            foreach (var time in new[] { 1, 2 })
            {
                host.Tool(0, $"to_vfio --gpu {card}");
                vm.Screendump($"driver-{time}-away").IsBlank().ShouldBeTrue();
                host.Tool(0, $"to_nvidia --gpu {card}");
                HostAtWork.Screen(vm, $"driver-{time}-back").ShowsTheSameAs(before).ShouldBeTrue();
                host.Picture().ShouldBe(home);
            }
            HostAtWork.ShowsWhatIsWritten(vm, "driver-3-written").ShouldBeTrue();
        });
    }

    [LabFact]
    public void A_helper_that_was_stopped_makes_no_call_of_its_killed_run_after_another_run_has_looked()
    {
        using var host = Boot("ovmf-killed");
        var (vm, card) = (host.Vm, host.Vm.Display);
        vm.Case(() =>
        {
            vm.Run("modprobe bochs && udevadm settle").Ok();
            var home = host.Picture();
            home.ShouldContain("console (S) dummy device bound=0");
            // Whether the helper has taken the request by then differs from round to round; the end may not.
            var waited = 0;
            foreach (var step in new[] { "… load vfio_pci", "… take the text console", "… take the text console", "… take the text console", $"… {card}: bochs-drm" })
            {
                vm.Run("rm -f /run/recover; [ ! -e /sys/module/vfio_pci ] || rmmod vfio_pci").Ok();
                KilledRun.At(host, step, $"to_vfio --gpu {card}", "read -r h rest < /proc/$p/task/$p/children; kill -STOP $h; echo $h > /run/stopped");
                var recover = vm.Start("gpu-handoff recover > /run/recover 2>&1; code=$?; echo ended >> /run/recover; exit $code");
                // Where the run was complete by then there is nothing to wait for.
                if (vm.Run("""bash -c 'grep -m 1 -E "^ended|waiting for.*--hand" < <(exec tail -n +1 -F /run/recover 2> /dev/null); kill $!'""").Text.Contains("--hand"))
                    waited++;
                vm.Run("kill -CONT $(cat /run/stopped)").Ok();
                recover.Wait(TimeSpan.FromMinutes(2)).ExitCode.ShouldBe(0, vm.Run("cat /run/recover").Text);
                // The vtconsole itself, when the killed run's helper is gone for sure.
                vm.Run("tail --pid=$(cat /run/stopped) -f /dev/null").Ok();
                var picture = host.Picture();
                picture.ShouldContain(picture.Contains("driver=vfio-pci") ? "console (S) dummy device bound=1" : "console (M) frame buffer device bound=1",
                    customMessage: $"killed at {step}");
                host.Tool(0, $"to_nvidia --gpu {card}");
                host.Picture().ShouldBe(home, $"killed at {step}");
            }
            waited.ShouldBeGreaterThan(1, "a helper that has ended by then shows nothing");
        });
    }

    static Host Boot(string name)
    {
        var host = new Host(
            new LabMachine
            {
                Name = name,
                Gpus = [],
                Display = LabDisplay.Vga,
                Firmware = LabFirmware.Ovmf,
                // udev shall not load it: the firmware's framebuffer stays the only one until a case says otherwise.
                KernelArguments = $"{HostAtWork.KernelArguments} modprobe.blacklist=bochs",
            },
            HostDriver.None);
        host.Vm.Run(HostAtWork.Prompt).Ok();
        return host;
    }

    static string FrameBuffers(LabVm vm) => vm.Run("cat /sys/class/graphics/fb*/name 2> /dev/null").Text;
}
