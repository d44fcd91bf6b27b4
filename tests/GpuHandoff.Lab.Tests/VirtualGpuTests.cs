namespace GpuHandoff.Lab.Tests;

/// <summary>The lab itself: what the other lab cases take for granted.</summary>
[Trait("Category", "Lab")]
[Collection(StandardMachine.Collection)]
public sealed class VirtualGpuTests(StandardMachine machine)
{
    LabVm Vm => machine.Vm;

    PluggedFunction Graphics => Vm.Gpus[0].Functions[0];

    PluggedFunction Audio => Vm.Gpus[0].Functions[1];

    [LabFact]
    public void The_real_nvidia_driver_binds_the_graphics_function() => Vm.Case(() =>
    {
        Driver(Graphics).ShouldBe("nvidia");
        Vm.Run("cat /proc/driver/nvidia/version").Ok().Text.ShouldContain("NVIDIA UNIX Open Kernel Module");
        Vm.Run($"cat /proc/driver/nvidia/gpus/{Graphics.Address}/information").Ok().Text.ShouldContain("NVIDIA GeForce RTX 4090");
    });

    [LabFact]
    public void The_driver_reads_the_registers_that_say_which_chip_it_is() =>
        Vm.Case(() => Graphics.Log.Entries().ShouldContain(entry => entry.Place == "bar0+a00/4" && entry.Value == 0x192a1000));

    [LabFact]
    public void The_sound_driver_binds_the_audio_function_and_makes_a_card() => Vm.Case(() =>
    {
        Driver(Audio).ShouldBe("snd_hda_intel");
        Vm.Run("test -c /dev/snd/controlC0").ExitCode.ShouldBe(0);
    });

    [LabFact]
    public void Both_functions_share_an_iommu_group_with_nobody_else() => Vm.Case(() =>
        Vm.Run($"ls /sys/bus/pci/devices/{Graphics.Address}/iommu_group/devices").Ok().Text.Split('\n')
            .ShouldBe([$"{Graphics.Address}", $"{Audio.Address}"]));

    [LabFact]
    public void A_shell_hands_both_functions_to_vfio_and_back() => Vm.Case(() =>
    {
        Vm.Run(ShellFloor.ToVfio(Vm.Gpus[0])).Ok();
        Driver(Graphics).ShouldBe("vfio-pci");
        Driver(Audio).ShouldBe("vfio-pci");

        Vm.Run(ShellFloor.ToHost(Vm.Gpus[0])).Ok();
        Driver(Graphics).ShouldBe("nvidia");
        Driver(Audio).ShouldBe("snd_hda_intel");
    });

    [LabFact]
    public void A_function_level_reset_reaches_the_card() => Vm.Case(() =>
    {
        Vm.Run(ShellFloor.ToVfio(Vm.Gpus[0])).Ok();
        var before = Graphics.Log.Count;

        Vm.Run($"echo flr > /sys/bus/pci/devices/{Graphics.Address}/reset_method "
            + $"&& echo 1 > /sys/bus/pci/devices/{Graphics.Address}/reset").Ok();

        Graphics.Log.Resets(before).Select(reset => reset.Place).ShouldBe(["flr"]);
        Vm.Run($"echo default > /sys/bus/pci/devices/{Graphics.Address}/reset_method").Ok();
        Vm.Run(ShellFloor.ToHost(Vm.Gpus[0])).Ok();
    });

    [LabFact]
    public void A_qemu_inside_the_machine_opens_the_group() => Vm.Case(() =>
    {
        Vm.Run(ShellFloor.ToVfio(Vm.Gpus[0])).Ok();
        var group = Vm.Run($"basename $(readlink /sys/bus/pci/devices/{Graphics.Address}/iommu_group)").Ok().Text;

        Vm.Run(NestedQemu.Start(Vm.Gpus[0])).Ok();
        Vm.Run($"fuser /dev/vfio/{group}").Ok().Text.ShouldContain(Vm.Run(NestedQemu.ProcessId).Ok().Text);

        Vm.Run(NestedQemu.Stop).Ok();
        Vm.Run($"fuser /dev/vfio/{group}").ExitCode.ShouldBe(1);
        Vm.Run(ShellFloor.ToHost(Vm.Gpus[0])).Ok();
    });

    [LabFact]
    public void A_card_that_fell_off_the_bus_answers_with_ones_until_it_is_back() => Vm.Case(() =>
    {
        Graphics.FallOffTheBus();
        Vm.Run($"head -c 4 /sys/bus/pci/devices/{Graphics.Address}/config | od -An -tx1").Ok().Text.ShouldBe(" ff ff ff ff");
        Graphics.ComeBack();
        Vm.Run($"head -c 4 /sys/bus/pci/devices/{Graphics.Address}/config | od -An -tx1").Ok().Text.ShouldBe(" de 10 84 26");
    });

    [LabFact]
    public void A_large_output_arrives_whole() =>
        Vm.Case(() => Vm.Run("head -c 2000000 /dev/zero | tr '\\0' x").Ok().Output.Length.ShouldBe(2_000_000));

    [LabFact]
    public void A_command_that_hangs_is_reported_and_the_machine_stays_usable() => Vm.Case(() =>
    {
        var hanging = Vm.Start("sleep 300");
        Should.Throw<LabCommandSilent>(() => hanging.Wait(TimeSpan.FromMilliseconds(300)));
        hanging.Kill();
        hanging.Wait(TimeSpan.FromSeconds(10)).ExitCode.ShouldBe(137);
    });

    [LabFact]
    public void Exit_code_output_and_errors_are_told_apart() => Vm.Case(() =>
    {
        var result = Vm.Run("echo out; echo err >&2; exit 7");
        (result.ExitCode, result.Output, result.Errors).ShouldBe((7, "out\n", "err\n"));
        result.Took.ShouldBeLessThan(result.RoundTrip);
    });

    string Driver(PluggedFunction function) =>
        Vm.Run($"basename $(readlink /sys/bus/pci/devices/{function.Address}/driver)").Text;
}
