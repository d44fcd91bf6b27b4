namespace GpuHandoff.Lab.Tests;

/// <summary>Hosts with more than one card: each test boots its own.</summary>
[Trait("Category", "Lab")]
public sealed class HandingOverOneOfSeveral
{
    [LabFact]
    public void Of_two_identical_gpus_one_goes_and_the_other_stays_on_nvidia()
    {
        using var host = new Host("two-identical-gpus", LabGpu.Standard, LabGpu.Standard);
        host.Case(() =>
        {
            var (first, second) = (host.Vm.Gpus[0], host.Vm.Gpus[1]);
            var unclear = host.Refused("to_vfio");
            unclear.ShouldContain(first.Functions[0].Address.ToString());
            unclear.ShouldContain(second.Functions[0].Address.ToString());
            host.Refused($"to_vfio --gpu 0 --policy unload").ShouldContain("[unload-takes-others]");

            foreach (var (gone, stays) in new[] { (first, second), (second, first) })
            {
                host.Tool(0, $"to_vfio --gpu {gone.Functions[0].Address}");
                (host.Driver(gone, 0), host.Driver(gone, 1)).ShouldBe(("vfio-pci", "vfio-pci"));
                (host.Driver(stays, 0), host.Driver(stays, 1)).ShouldBe(("nvidia", "snd_hda_intel"));
                host.Override(stays, 0).ShouldBe("(null)");
                host.Modules().ShouldBe("nvidia nvidia_drm nvidia_modeset nvidia_uvm");
                host.Vm.Run($"cat /proc/driver/nvidia/gpus/{stays.Functions[0].Address}/information").Ok().Text.ShouldContain("RTX 4090");
                host.Vm.Run($"ls /sys/bus/pci/devices/{stays.Functions[0].Address}/drm").Ok().Text.ShouldContain("card");
                host.Tool(0, $"to_nvidia --gpu {gone.Functions[0].Address}");
                host.Vm.Run($"ls /sys/bus/pci/devices/{gone.Functions[0].Address}/drm").Ok().Text.ShouldContain("card");
            }

            host.Tool(0, "to_vfio --gpu all");
            host.Modules().ShouldBe("");
            host.Tool(0, "to_nvidia --gpu all");
        });
    }

    [LabFact]
    public void Four_functions_go_together_and_a_stranger_in_the_group_is_refused_and_debians_file_names_work()
    {
        using var host = new Host("four-functions-and-a-stranger", LabGpu.WithUsb, LabGpu.Standard with { Stranger = true });
        host.Case(() =>
        {
            var (usb, shared) = (host.Vm.Gpus[0], host.Vm.Gpus[1]);
            string[] Drivers() => [.. Enumerable.Range(0, 4).Select(i => host.Driver(usb, i))];
            var home = Drivers();
            home[..3].ShouldBe(["nvidia", "snd_hda_intel", "xhci_hcd"]);

            host.Tool(0, "to_vfio --gpu 0");
            Drivers().ShouldAllBe(driver => driver == "vfio-pci");
            host.Tool(0, "to_nvidia --gpu 0");
            Drivers().ShouldBe(home);

            var stranger = shared.Stranger!.Value;
            var refused = host.Refused("to_vfio --gpu 1");
            refused.ShouldContain("[group-is-shared]");
            refused.ShouldContain(stranger.ToString());
            refused.ShouldContain("driver=e1000");

            host.Tool(0, $"to_vfio --gpu 1 --accept-neighbour {stranger}");
            host.Vm.Run($"basename $(readlink /sys/bus/pci/devices/{stranger}/driver)").Text.ShouldBe("vfio-pci");
            host.Tool(0, "to_nvidia --gpu 1");
            host.Vm.Run($"basename $(readlink /sys/bus/pci/devices/{stranger}/driver)").Text.ShouldBe("e1000");

            // Debian's packages name the files nvidia-current-open*.ko and reach them by aliases.
            host.Vm.Run("modprobe -r nvidia_uvm nvidia_drm nvidia_modeset nvidia && /usr/local/lib/lab/use-debian-naming").Ok();
            host.Vm.Run("modprobe nvidia && modprobe nvidia_modeset && modprobe nvidia_drm && modprobe nvidia_uvm").Ok();
            host.Tool(0, $"to_vfio --gpu all --accept-neighbour {stranger}");
            host.Modules().ShouldBe("");
            host.Tool(0, "to_nvidia --gpu all");
            host.Modules().ShouldBe("nvidia nvidia_drm nvidia_modeset nvidia_uvm");
        });
    }
}
