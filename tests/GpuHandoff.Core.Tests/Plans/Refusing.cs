using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>What is refused is refused before a byte is written: <see cref="Desk.Refused"/> looks at every write.</summary>
public class Refusing
{
    static readonly Policy _unbind = Policy.Default with { By = FreeBy.Unbind };

    [Theory]
    [InlineData("/dev/nvidiactl")]
    [InlineData("/dev/nvidia0")]
    [InlineData("/dev/nvidia-uvm")]
    [InlineData("/dev/nvidia-modeset")]
    public void A_held_node_of_the_driver_is_a_refusal_that_names_its_holder(string node)
    {
        var desk = new Desk(Hosts.SingleGpu());
        var process = desk.Kernel.StartProcess("ollama");
        desk.Kernel.OpenNode(node, process);

        var finding = desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem();

        finding.Code.ShouldBe("gpu-in-use");
        finding.Evidence.ShouldContain($"{process.Pid} ollama ({node}) user alice");
        finding.Hint.ShouldNotBeEmpty();
    }

    [Fact]
    public void A_containers_own_node_counts_though_its_path_is_another()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var node = desk.Kernel.NodeAt(new("/dev/nvidia0"))!;
        var process = desk.Kernel.StartProcess("python3", "/lxc/107/ns/init.scope");
        desk.Kernel.OpenNode(node, "/srv/devices/gpu", process);
        desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem().Evidence.ShouldContain($"{process.Pid} python3 (/srv/devices/gpu) in container 107");
    }

    [Fact]
    public void A_cuda_process_with_nothing_but_its_nvidia_node_is_found_when_its_card_would_be_unbound()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        desk.Kernel.OpenNode("/dev/nvidia0", desk.Kernel.StartProcess("cuda"));
        desk.Refused(Target.Vfio, "01:00").Findings.ShouldContain(f => f.Code == "gpu-in-use");
    }

    [Fact]
    public void A_user_of_the_other_card_does_not_keep_this_one()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        desk.Kernel.OpenNode("/dev/nvidia1", desk.Kernel.StartProcess("cuda"));
        desk.Done(Target.Vfio, "01:00");
    }

    [Fact]
    public void An_initialised_card_without_a_visible_holder_is_not_unbound()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        desk.Kernel.UseInKernel(desk.Survey().Gpus[0].Address);
        var finding = desk.Refused(Target.Vfio, "01:00").Findings.ShouldHaveSingleItem();
        finding.Code.ShouldBe("gpu-in-use");
        finding.Evidence.ShouldContain(line => line.Contains("interrupts"));
    }

    [Fact]
    public void Persistence_mode_without_a_daemon_is_noticed_before_an_unbind()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        desk.Kernel.SetLegacyPersistence(desk.Survey().Gpus[0].Address, on: true);
        desk.Refused(Target.Vfio, "01:00").Findings.ShouldHaveSingleItem().Hint.ShouldContain("nvidia-smi -pm 0");
    }

    [Fact]
    public void A_sound_card_in_use_is_named_before_anything_is_touched()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.OpenNode("/dev/snd/controlC0", desk.Kernel.StartProcess("pipewire"));
        var finding = desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem();
        finding.Code.ShouldBe("sibling-in-use");
        finding.Evidence.ShouldHaveSingleItem().ShouldContain("pipewire");
    }

    [Fact]
    public void A_stranger_in_the_group_is_a_refusal_that_names_it()
    {
        var finding = new Desk(Hosts.WithStranger()).Refused(Target.Vfio).Findings.ShouldHaveSingleItem();
        finding.Code.ShouldBe("group-is-shared");
        finding.Evidence.ShouldHaveSingleItem().ShouldContain("driver=nvme");
    }

    [Fact]
    public void A_stranger_that_is_accepted_goes_along_and_comes_back_to_its_driver()
    {
        var usb = new PciHardware(new(0, 5, 0, 0), 0x1b21, 0x2142, 0x0c0330) { IommuGroup = 11 };
        var desk = new Desk(new HostBuilder().With(Hosts.Card(1)).With(usb).WithNvidiaDriver(new())
            .Loading("snd_hda_intel", "xhci_pci", "nvidia", "nvidia_uvm").Boot());
        desk.DriverOf("0000:05:00.0").ShouldBe("xhci_hcd");
        desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem().Hint.ShouldContain("--accept-neighbour 0000:05:00.0");
        var before = desk.Picture();
        var stranger = desk.Survey().Gpus[0].Neighbours.Single().Address;
        var policy = Policy.Default with { Accepted = [stranger] };
        desk.Done(Target.Vfio, policy: policy);
        desk.DriverOf(stranger.ToString()).ShouldBe("vfio-pci");
        desk.Done(Target.Host);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void An_open_i2c_adapter_of_the_card_is_named()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        var adapter = desk.Kernel.List(new("/sys/bus/pci/devices/0000:01:00.0")).First(name => name.StartsWith("i2c-", StringComparison.Ordinal));
        desk.Kernel.OpenNode($"/dev/{adapter}", desk.Kernel.StartProcess("ddcutil"));
        desk.Refused(Target.Vfio, "01:00").Findings.ShouldHaveSingleItem().Evidence.ShouldHaveSingleItem().ShouldContain("ddcutil");
    }

    [Fact]
    public void A_second_gpu_in_the_group_is_not_taken_along_as_a_neighbour()
    {
        var desk = new Desk(new HostBuilder().With(Hosts.Card(1)).With(Hosts.Card(2).Select(f => f.Class == 0x060400 ? f : f with { IommuGroup = 11 }))
            .WithNvidiaDriver(new()).Loading("nvidia").Boot());
        PciAddress.TryParse("0000:02:00.0", out var other).ShouldBeTrue();
        var policy = Policy.Default with { Accepted = [other, other with { Function = 1 }] };
        desk.Refused(Target.Vfio, "01:00", policy).Findings.ShouldContain(f => f.Code == "group-is-shared" && f.Hint.Contains("--gpu all"));
        desk.Done(Target.Vfio, "all");
    }

    [Fact]
    public void A_driver_that_is_built_in_is_not_unloaded()
    {
        var desk = new Desk(new HostBuilder().With(Hosts.Card(1)).WithNvidiaDriver(new()).WithBuiltIn("nvidia").Boot());
        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
        desk.Refused(Target.Vfio, policy: Policy.Default with { By = FreeBy.Unload }).Findings.ShouldContain(f => f.Code == "unload-not-possible");
        desk.Planned(Target.Vfio).Steps().ShouldAllBe(s => s is LoadModule || s is HoldPower || s is Rebind || s is AwaitIdle);
    }

    [Fact]
    public void A_storage_controller_is_not_taken_along_even_where_it_is_accepted()
    {
        var desk = new Desk(Hosts.WithStranger());
        var policy = Policy.Default with { Accepted = [desk.Survey().Gpus[0].Neighbours.Single().Address] };
        desk.Refused(Target.Vfio, policy: policy).Findings.ShouldHaveSingleItem().Hint.ShouldContain("storage controller");
    }

    [Fact]
    public void A_bridge_in_the_group_is_no_stranger_and_is_not_bound()
    {
        var desk = new Desk(new HostBuilder().With(Hosts.Card(1).Select(f => f with { IommuGroup = 14 }))
            .WithNvidiaDriver(new()).Loading("nvidia").Boot());
        desk.Done(Target.Vfio);
        desk.DriverOf("0000:00:01.0").ShouldBe("pcieport");
    }

    [Fact]
    public void Without_an_iommu_nothing_is_lent() =>
        new Desk(Hosts.NoIommu()).Refused(Target.Vfio).Findings.ShouldContain(f => f.Code == "iommu-off");

    [Fact]
    public void Without_vfio_pci_nothing_is_lent() =>
        new Desk(Hosts.NoVfioPci()).Refused(Target.Vfio).Findings.ShouldHaveSingleItem().Code.ShouldBe("vfio-pci-missing");

    [Fact]
    public void Without_nvidias_module_a_card_does_not_leave_vfio_pci_for_nothing()
    {
        var desk = new Desk(Hosts.NoNvidiaModule());
        desk.Done(Target.Vfio);
        desk.Refused(Target.Host).Findings.ShouldHaveSingleItem().Code.ShouldBe("host-driver-missing");
    }

    [Fact]
    public void A_card_that_a_vm_has_is_not_taken_from_it()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        desk.Kernel.StartVm("111", [.. desk.Survey().Gpus[0].Functions.Select(f => f.Address)]);
        var finding = desk.Refused(Target.Host).Findings.ShouldHaveSingleItem();
        finding.Code.ShouldBe("vm-has-the-gpu");
        finding.Evidence.ShouldNotBeEmpty();
    }

    [Fact]
    public void Other_gpus_on_the_driver_make_unloading_a_refusal_that_names_them()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        var refused = desk.Refused(Target.Vfio, "01:00", Policy.Default with { By = FreeBy.Unload });
        refused.Findings.ShouldHaveSingleItem().Code.ShouldBe("unload-takes-others");
        refused.Findings[0].Evidence.ShouldHaveSingleItem().ShouldContain("0000:02:00.0");
    }

    [Fact]
    public void Under_an_old_driver_a_used_nvidia_drm_is_a_refusal()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus(new(Modeset: true)));
        var card = desk.Survey().DrmCards.Single(c => c.Function.Bus == 2).Nodes.First(n => n.StartsWith("card", StringComparison.Ordinal));
        desk.Kernel.OpenNode($"/dev/dri/{card}", desk.Kernel.StartProcess("Xorg"));
        var finding = desk.Refused(Target.Vfio, "01:00").Findings.First();
        finding.Code.ShouldBe("drm-holds-the-card");
        finding.Evidence.ShouldContain(line => line.Contains("Xorg"));
    }

    [Fact]
    public void A_kernel_that_cannot_unload_modules_unbinds_instead()
    {
        var desk = new Desk(new HostBuilder().With(Hosts.Card(1)).WithNvidiaDriver(new("580.126.20"))
            .Loading("nvidia", "nvidia_uvm").WithoutModuleUnload().Boot());
        desk.Planned(Target.Vfio).Steps().ShouldNotContain(s => s is UnloadDriver);
        desk.Refused(Target.Vfio, policy: Policy.Default with { By = FreeBy.Unload })
            .Findings.ShouldContain(f => f.Code == "unload-not-possible");
        desk.Done(Target.Vfio);
    }

    [Fact]
    public void A_module_that_turns_busy_after_the_look_gives_everything_back()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var before = desk.Picture();
        desk.Kernel.Faults.Before("rmmod nvidia_modeset".Equals, kernel => kernel.OpenNode(
            new DeviceNode(195, 255, 0x1b6, 0, 0), "/dev/nvidiactl", kernel.StartProcess("nvidia-smi")));
        var outcome = desk.Run(Target.Vfio).ShouldBeOfType<Outcome.RolledBack>();
        outcome.Cause!.Reason.ShouldContain("EAGAIN");
        foreach (var process in desk.Kernel.RunningProcesses.ToList())
            desk.Kernel.EndProcess(process);
        desk.Picture().ShouldBe(before);
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("nvidia/unbind"));
    }

    [Fact]
    public void An_unbind_that_never_returns_ends_within_its_budget_and_names_the_call()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.Faults.Silent(call => call.Contains("snd_hda_intel/unbind"));
        var began = desk.Kernel.Uptime;
        var stuck = desk.Run(Target.Vfio, policy: _unbind).ShouldBeOfType<Outcome.Stuck>();
        (desk.Kernel.Uptime - began).ShouldBeLessThan(Limits.Default.Write + TimeSpan.FromSeconds(2));
        stuck.Failures.ShouldHaveSingleItem().Reason.ShouldContain("snd_hda_intel/unbind");
        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia", "a sound card that blocks must not cost the GPU");
    }

    [Fact]
    public void A_failed_undo_does_not_stop_the_others_and_both_errors_are_told()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.Faults.Refuse(call => call.Contains("vfio-pci/bind") && call.Contains("01:00.0"), Errno.InputOutput);
        desk.Kernel.Faults.Refuse("modprobe nvidia_uvm".Equals, Errno.InputOutput);
        var stuck = desk.Run(Target.Vfio).ShouldBeOfType<Outcome.Stuck>();
        stuck.Silent.ShouldBeFalse();
        stuck.Failures.Length.ShouldBe(2);
        stuck.NotUndone.ShouldHaveSingleItem().Say().ShouldBe("unload nvidia_uvm");
        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
        desk.DriverOf("0000:01:00.1").ShouldBe("snd_hda_intel");
    }

    [Fact]
    public void A_run_that_takes_longer_than_it_may_is_rolled_back()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var before = desk.Picture();
        desk.Kernel.Faults.Before("rmmod nvidia_drm".Equals, kernel => kernel.Pause(TimeSpan.FromSeconds(30)));
        var policy = Policy.Default with { Limits = Limits.Default with { Total = TimeSpan.FromSeconds(10) } };
        desk.Run(Target.Vfio, policy: policy).ShouldBeOfType<Outcome.RolledBack>().What.ShouldContain("10 s");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_bind_that_the_kernel_reports_and_does_not_do_is_seen_by_reading_the_link()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var before = desk.Picture();
        desk.Kernel.Faults.Ignore(call => call.Contains("vfio-pci/bind") && call.Contains("01:00.0"));
        desk.Run(Target.Vfio).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason.ShouldContain("no driver");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_world_that_moved_since_the_plan_is_not_forced()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        var plan = desk.Planned(Target.Vfio, "01:00", _unbind);
        desk.Kernel.Elsewhere(kernel =>
        {
            kernel.UnloadModule("nvidia_drm", TimeSpan.FromSeconds(1));
            kernel.Write(new("/sys/bus/pci/drivers/nvidia/unbind"), "0000:01:00.0", TimeSpan.FromSeconds(1));
            kernel.LoadModule("nouveau", [], TimeSpan.FromSeconds(1));
        });
        desk.DriverOf("0000:01:00.0").ShouldBe("nouveau");
        desk.Run(plan).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason.ShouldContain("changed since the plan");
        desk.DriverOf("0000:01:00.0").ShouldBe("nouveau");
    }
}
