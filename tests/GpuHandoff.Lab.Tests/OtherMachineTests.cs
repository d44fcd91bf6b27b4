using System.Text;

namespace GpuHandoff.Lab.Tests;

/// <summary>What a case can ask of a machine beyond the standard one. All in one boot.</summary>
[Trait("Category", "Lab")]
public sealed class OtherMachineTests
{
    [LabFact]
    public void Two_cards_one_with_usb_and_one_beside_a_stranger_and_files_and_debian_naming()
    {
        using var vm = LabVm.Boot(new()
        {
            Name = "other",
            Gpus = [LabGpu.WithUsb, LabGpu.Standard with { Stranger = true }],
            Files = [LabFile.Script("/usr/local/bin/hello", "#!/bin/sh\necho hello from the case\n")],
            KernelArguments = "lab.mark=seen",
            Display = LabDisplay.Bochs,
        });
        vm.Case(() =>
        {
            vm.Run("hello").Ok().Text.ShouldBe("hello from the case");
            Encoding.UTF8.GetString(vm.Collect("/proc/cmdline")).ShouldContain("lab.mark=seen");

            vm.Run("/usr/local/lib/lab/use-debian-naming && modprobe nvidia-drm").Ok();
            vm.Run("ls /proc/driver/nvidia/gpus").Ok().Text.Split('\n')
                .ShouldBe([.. vm.Gpus.Select(gpu => gpu.Address.ToString())]);

            var (first, second) = (vm.Gpus[0], vm.Gpus[1]);
            Driver(vm, first.Functions[2].Address).ShouldBe("xhci_hcd");
            Driver(vm, first.Functions[3].Address).ShouldBe("");
            Driver(vm, second.Stranger!.Value).ShouldBe("e1000");
            Group(vm, second.Address).ShouldBe(Group(vm, second.Stranger.Value));
            Group(vm, first.Address).ShouldNotBe(Group(vm, second.Address));

            vm.Run("echo kept > /root/kept; sync").Ok();
            var boot = vm.Run("cat /proc/sys/kernel/random/boot_id").Ok().Text;
            vm.Reboot(crash: true);
            vm.Run("cat /proc/sys/kernel/random/boot_id").Ok().Text.ShouldNotBe(boot);
            vm.Run("cat /root/kept").Ok().Text.ShouldBe("kept");

            // Nobody has a prompt on this screen: without a word it shows a cursor, and that blinks.
            vm.Run("echo hello > /dev/tty1").Ok();
            HostAtWork.Screen(vm, "screen").IsBlank().ShouldBeFalse();
            new FileInfo(Path.Combine(vm.Evidence, "screen.png")).Length.ShouldBeGreaterThan(100);
        });
    }

    static string Driver(LabVm vm, Machines.PciAddress function) =>
        vm.Run($"basename \"$(readlink /sys/bus/pci/devices/{function}/driver)\"").Text;

    static string Group(LabVm vm, Machines.PciAddress function) =>
        vm.Run($"readlink /sys/bus/pci/devices/{function}/iommu_group").Ok().Text;
}
