using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Plans;

public class HandingOver
{
    const string Gpu = "0000:01:00.0";
    const string Audio = "0000:01:00.1";

    [Fact]
    public void The_only_gpu_is_freed_by_unloading_and_these_are_all_the_writes()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        string.Join('\n', desk.Kernel.Calls).ShouldBe("""
            modprobe vfio_pci
            write "0" /sys/bus/pci/devices/0000:01:00.0/d3cold_allowed
            write "0" /sys/bus/pci/devices/0000:01:00.1/d3cold_allowed
            write "vfio-pci\n" /sys/bus/pci/devices/0000:01:00.1/driver_override
            write "0000:01:00.1" /sys/bus/pci/drivers/snd_hda_intel/unbind
            write "0000:01:00.1" /sys/bus/pci/drivers/vfio-pci/bind
            write "on" /sys/bus/pci/devices/0000:01:00.1/power/control
            unlink /dev/nvidia-modeset
            unlink /dev/nvidia-uvm
            unlink /dev/nvidia-uvm-tools
            unlink /dev/nvidia0
            unlink /dev/nvidiactl
            rmmod nvidia_uvm
            rmmod nvidia_drm
            rmmod nvidia_modeset
            write "vfio-pci\n" /sys/bus/pci/devices/0000:01:00.0/driver_override
            rmmod nvidia
            write "0000:01:00.0" /sys/bus/pci/drivers/vfio-pci/bind
            write "on" /sys/bus/pci/devices/0000:01:00.0/power/control
            """);
    }

    [Fact]
    public void The_way_back_is_the_mirror_image_and_these_are_all_the_writes()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        var before = desk.Kernel.Calls.Count;
        desk.Done(Target.Host);
        string.Join('\n', desk.Kernel.Calls.Skip(before)).ShouldBe("""
            write "nvidia\n" /sys/bus/pci/devices/0000:01:00.0/driver_override
            write "0000:01:00.0" /sys/bus/pci/drivers/vfio-pci/unbind
            modprobe nvidia
            write "\n" /sys/bus/pci/devices/0000:01:00.0/driver_override
            modprobe nvidia_modeset
            modprobe nvidia_drm modeset=N fbdev=N
            modprobe nvidia_uvm
            write "snd_hda_intel\n" /sys/bus/pci/devices/0000:01:00.1/driver_override
            write "0000:01:00.1" /sys/bus/pci/drivers/vfio-pci/unbind
            write "0000:01:00.1" /sys/bus/pci/drivers/snd_hda_intel/bind
            write "\n" /sys/bus/pci/devices/0000:01:00.1/driver_override
            write "1" /sys/bus/pci/devices/0000:01:00.0/d3cold_allowed
            write "1" /sys/bus/pci/devices/0000:01:00.1/d3cold_allowed
            mknod /dev/nvidia-modeset
            mknod /dev/nvidia-uvm
            mknod /dev/nvidia-uvm-tools
            mknod /dev/nvidia0
            mknod /dev/nvidiactl
            """);
    }

    public static TheoryData<string> RoundTrips() => [.. Hosts.All.Select(h => h.Name)
        .Except(["with-stranger", "no-vfio-pci", "no-iommu", "no-nvidia-module"])];

    [Theory]
    [MemberData(nameof(RoundTrips))]
    public void Two_opposite_runs_leave_the_machine_as_it_was(string name)
    {
        foreach (var policy in new[] { FreeBy.Auto, FreeBy.Unbind }.Select(Everywhere.FaultSweep.Of))
        {
            var desk = new Desk(Hosts.All.First(h => h.Name == name).Boot());
            var gpu = desk.Survey().NvidiaGpus().Any() ? "0" : desk.Survey().Gpus[0].Address.ToString();
            var before = desk.Picture();
            for (var round = 0; round < 5; round++)
            {
                desk.Done(Target.Vfio, gpu, policy);
                desk.Done(Target.Host, gpu, policy);
                desk.Picture().ShouldBe(before, $"{name}, round {round}");
            }
            // Kept where the way back is no way at all: what was on vfio-pci stays there, and we must still know it.
            if (name != "already-on-vfio")
                desk.Ledger.Homes().ShouldBeEmpty();
            desk.Kernel.Hazards.ShouldBeEmpty();
        }
    }

    [Theory]
    [InlineData(FreeBy.Unload)]
    [InlineData(FreeBy.Unbind)]
    public void Twice_in_a_row_is_a_no_op(FreeBy way)
    {
        var desk = new Desk(Hosts.SingleGpu());
        var policy = Policy.Default with { By = way };
        foreach (var target in new[] { Target.Vfio, Target.Host })
        {
            desk.Done(target, policy: policy);
            var calls = desk.Kernel.Calls.Count;
            desk.Run(target, policy: policy).ShouldBe(new Outcome.Done(0));
            desk.Kernel.Calls.Count.ShouldBe(calls);
        }
    }

    [Fact]
    public void A_gpu_on_the_host_already_is_not_touched_on_the_way_back()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Run(Target.Host).ShouldBe(new Outcome.Done(0));
        desk.Kernel.Calls.ShouldBeEmpty();
    }

    [Fact]
    public void A_gpu_on_vfio_pci_already_needs_no_bind_and_no_unbind()
    {
        var desk = new Desk(Hosts.AlreadyOnVfio());
        desk.Done(Target.Vfio);
        desk.Kernel.Calls.ShouldAllBe(call => call.Contains("driver_override") || call.Contains("d3cold_allowed") || call.Contains("power/control"));
    }

    [Fact]
    public void What_was_on_vfio_pci_before_we_came_stays_there_on_the_way_back()
    {
        var desk = new Desk(Hosts.AlreadyOnVfio());
        desk.Done(Target.Vfio);
        var plan = desk.Planned(Target.Host);
        plan.Notes.ShouldContain(note => note.Contains("was on vfio-pci before"));
        desk.Run(plan);
        desk.DriverOf(Gpu).ShouldBe("vfio-pci");
    }

    [Fact]
    public void Claimed_even_what_was_on_vfio_pci_before_goes_to_the_host()
    {
        var desk = new Desk(Hosts.AlreadyOnVfio());
        desk.Done(Target.Vfio);
        desk.Done(Target.Host, policy: Policy.Default with { Claim = true });
        desk.DriverOf(Gpu).ShouldBe("nvidia");
        desk.DriverOf(Audio).ShouldBe("snd_hda_intel");
    }

    [Fact]
    public void A_gpu_that_vfio_pci_had_from_boot_goes_to_nvidia_when_it_is_asked_for_by_name()
    {
        var desk = new Desk(Hosts.AlreadyOnVfio());
        desk.Done(Target.Host);
        desk.DriverOf(Gpu).ShouldBe("nvidia");
        desk.DriverOf(Audio).ShouldBe("snd_hda_intel");
        desk.OverrideOf(Gpu).ShouldBeNull();
    }

    [Fact]
    public void A_gpu_on_nouveau_returns_to_nouveau()
    {
        var desk = new Desk(Hosts.NouveauFirst());
        desk.Done(Target.Vfio);
        desk.DriverOf(Gpu).ShouldBe("vfio-pci");
        desk.Done(Target.Host);
        desk.DriverOf(Gpu).ShouldBe("nouveau");
    }

    [Fact]
    public void A_gpu_of_another_maker_goes_to_the_vm_and_back_to_its_own_driver()
    {
        var desk = new Desk(Hosts.AmdGpu());
        var gpu = desk.Survey().Gpus.Single(g => g.Functions.Any(f => f.Owner.Driver == "amdgpu")).Address.ToString();
        desk.Done(Target.Vfio, gpu);
        desk.DriverOf(gpu).ShouldBe("vfio-pci");
        desk.Done(Target.Host, gpu);
        desk.DriverOf(gpu).ShouldBe("amdgpu");
    }

    [Fact]
    public void All_four_functions_go_and_each_comes_back_to_its_own_driver()
    {
        var desk = new Desk(Hosts.FourFunctions());
        string?[] Drivers() => [.. desk.Survey().Gpus.Single().Functions.Select(f => f.Owner.Driver)];
        var home = Drivers();
        home.ShouldBe(["nvidia", "snd_hda_intel", "xhci_hcd", "nvidia-gpu"]);

        desk.Done(Target.Vfio);
        Drivers().ShouldAllBe(driver => driver == "vfio-pci");
        desk.Done(Target.Host);
        Drivers().ShouldBe(home);
    }

    [Fact]
    public void Lent_functions_keep_their_override_and_returned_ones_have_none()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        (desk.OverrideOf(Gpu), desk.OverrideOf(Audio)).ShouldBe(("vfio-pci", "vfio-pci"));
        desk.Done(Target.Host);
        desk.Kernel.Read(new($"/sys/bus/pci/devices/{Gpu}/driver_override")).ShouldBe("(null)");
        desk.Kernel.Read(new($"/sys/bus/pci/devices/{Audio}/driver_override")).ShouldBe("(null)");
    }

    [Fact]
    public void An_override_that_another_tool_left_is_put_back()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.Elsewhere(kernel =>
            kernel.Write(new($"/sys/bus/pci/devices/{Gpu}/driver_override"), "none\n", TimeSpan.FromSeconds(1)));
        desk.Done(Target.Vfio);
        desk.Done(Target.Host);
        desk.OverrideOf(Gpu).ShouldBe("none");
    }

    [Fact]
    public void Dynamic_ids_that_proxmox_left_do_not_steal_the_card_on_the_way_back()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        desk.Kernel.Elsewhere(kernel =>
        {
            kernel.Write(new("/sys/bus/pci/drivers/vfio-pci/new_id"), "10de 2684", TimeSpan.FromSeconds(1));
            kernel.Write(new("/sys/bus/pci/drivers/vfio-pci/new_id"), "10de 22ba", TimeSpan.FromSeconds(1));
        });
        desk.Done(Target.Host);
        (desk.DriverOf(Gpu), desk.DriverOf(Audio)).ShouldBe(("nvidia", "snd_hda_intel"));
    }

    [Fact]
    public void Nothing_is_ever_added_to_vfio_pcis_dynamic_ids()
    {
        foreach (var (_, boot) in Hosts.All)
        {
            var desk = new Desk(boot());
            if (desk.Survey().NvidiaGpus().Any() && desk.Plan(Target.Vfio, "0") is Answer.Planned { Plan: var plan })
                desk.Run(plan);
            desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("new_id"));
        }
    }

    [Fact]
    public void Of_two_identical_cards_one_goes_by_unbinding_and_the_other_keeps_working()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus(new("580.126.20")));
        var cuda = desk.Kernel.OpenNode("/dev/nvidia1", desk.Kernel.StartProcess("python3"));

        desk.Done(Target.Vfio, "01:00");

        desk.DriverOf(Gpu).ShouldBe("vfio-pci");
        desk.DriverOf("0000:02:00.0").ShouldBe("nvidia");
        desk.Kernel.Calls.ShouldAllBe(call => !call.StartsWith("rmmod", StringComparison.Ordinal));
        desk.Kernel.Device("0000:02:00.0").UsageCount.ShouldBe(1);
        cuda.Dispose();
        desk.Done(Target.Host, "01:00");
        desk.DriverOf(Gpu).ShouldBe("nvidia");
    }

    [Fact]
    public void Under_an_old_driver_nvidia_drm_is_unloaded_around_the_unbind_and_loaded_again_for_the_other_card()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus(new(Modeset: true)));
        var plan = desk.Planned(Target.Vfio, "01:00");
        plan.Steps().Select(s => s.Say()).ShouldBe(
        [
            "load vfio_pci",
            "power of 0000:01:00.0, 0000:01:00.1: on, D3cold allowed → on, no D3cold",
            "0000:01:00.1: snd_hda_intel → vfio-pci",
            "unload nvidia_drm",
            "remove the node /dev/nvidia0",
            "wait until 0000:01:00.0 is idle",
            "0000:01:00.0: nvidia → vfio-pci",
            "load nvidia_drm (modeset=Y fbdev=N)",
        ]);
        desk.Run(plan).ShouldBeOfType<Outcome.Done>();
        desk.Done(Target.Host, "01:00");
        desk.Survey().DrmCards.Length.ShouldBe(2);
    }

    [Fact]
    public void From_580_105_on_a_single_unbind_leaves_nvidia_drm_loaded_where_the_counts_show_that_nobody_uses_anything()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus(new("580.126.20", Modeset: true)));
        desk.Planned(Target.Vfio, "01:00").Steps().ShouldAllBe(s => s is LoadModule || s is HoldPower || s is Rebind || s is RemoveNodes || s is AwaitIdle);
        desk.Done(Target.Vfio, "01:00");
    }

    [Fact]
    public void With_modeset_a_user_of_the_other_card_makes_nvidia_drm_go_so_that_this_card_can_be_shown_to_be_idle()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus(new("595.45.04", Modeset: true)));
        desk.Kernel.OpenNode("/dev/nvidia1", desk.Kernel.StartProcess("cuda"));
        desk.Planned(Target.Vfio, "01:00").Steps().Select(s => s.Say()).ShouldContain("unload nvidia_drm");
        desk.Done(Target.Vfio, "01:00");
        desk.Survey().Module("nvidia_drm").State.ShouldBe(ModuleState.Loaded);
    }

    [Fact]
    public void An_undo_does_not_unbind_a_card_that_somebody_opened_meanwhile()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus(new("595.45.04", Modeset: false)));
        desk.Done(Target.Vfio, "01:00");
        var before = desk.Kernel.Calls.Count;
        desk.Kernel.Faults.Before(
            call => call.Contains("01:00.1/driver_override"),
            kernel => kernel.OpenNode(new DeviceNode(195, 0, 0x1b6, 0, 0), "/dev/nvidia0", kernel.StartProcess("nvidia-persistenced")));
        desk.Kernel.Faults.Refuse(call => call.Contains("snd_hda_intel/bind"), Errno.InputOutput);

        var stuck = desk.Run(Target.Host, "01:00").ShouldBeOfType<Outcome.Stuck>(desk.Memo.ToString());

        stuck.Silent.ShouldBeFalse();
        desk.Kernel.Calls.Skip(before).ShouldAllBe(call => !call.Contains("nvidia/unbind"));
        desk.DriverOf(Gpu).ShouldBe("nvidia", "with a user the card stays where it works");
    }

    [Fact]
    public void A_sibling_that_had_no_driver_gets_none()
    {
        var desk = new Desk(new HostBuilder().With(Hosts.Card(1)).WithNvidiaDriver(new()).Loading("nvidia", "nvidia_uvm").Boot());
        desk.DriverOf(Audio).ShouldBeNull();
        desk.Run(Target.Host).ShouldBe(new Outcome.Done(0));
        desk.Kernel.Elsewhere(kernel =>
            kernel.Write(new($"/sys/bus/pci/devices/{Audio}/driver_override"), "none\n", TimeSpan.FromSeconds(1)));
        desk.Done(Target.Vfio);
        desk.DriverOf(Audio).ShouldBe("vfio-pci");
        desk.Done(Target.Host);
        (desk.DriverOf(Audio), desk.OverrideOf(Audio)).ShouldBe((null, "none"));
    }

    [Fact]
    public void All_gpus_at_once_go_by_unloading()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        var before = desk.Picture();
        desk.Done(Target.Vfio, "all");
        (desk.DriverOf(Gpu), desk.DriverOf("0000:02:00.0")).ShouldBe(("vfio-pci", "vfio-pci"));
        desk.Kernel.Calls.ShouldContain("rmmod nvidia");
        desk.Done(Target.Host, "all");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void Two_gpus_that_went_one_after_the_other_come_back_one_after_the_other()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        var before = desk.Picture();
        desk.Done(Target.Vfio, "01:00");
        desk.Done(Target.Vfio, "02:00");
        desk.Done(Target.Host, "01:00");
        desk.DriverOf("0000:02:00.0").ShouldBe("vfio-pci");
        desk.Done(Target.Host, "02:00");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_console_of_another_card_is_not_touched()
    {
        var desk = new Desk(Hosts.WithIgpu());
        desk.Done(Target.Vfio);
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("vtconsole") && !call.Contains("00:02.0"));
    }

    [Fact]
    public void The_parameters_that_nvidia_drm_ran_with_are_given_again()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.Elsewhere(kernel =>
        {
            kernel.UnloadModule("nvidia_drm", TimeSpan.FromSeconds(1));
            kernel.LoadModule("nvidia_drm", ["modeset=1"], TimeSpan.FromSeconds(1));
        });
        desk.Done(Target.Vfio);
        desk.Done(Target.Host);
        desk.Survey().Module("nvidia_drm").Parameters.ShouldContain("modeset=Y");
    }

    [Fact]
    public void A_node_of_nvidia_uvm_gets_the_major_of_today()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var before = desk.Kernel.NodeAt(new("/dev/nvidia-uvm"));
        desk.Done(Target.Vfio);
        desk.Kernel.NodeAt(new("/dev/nvidia-uvm")).ShouldBeNull();
        desk.Done(Target.Host);
        var major = CharDevices.Major(desk.Kernel.Read(new("/proc/devices"))!, "nvidia-uvm");
        desk.Kernel.NodeAt(new("/dev/nvidia-uvm")).ShouldBe(before! with { Major = major!.Value });
    }

    [Fact]
    public void A_poller_that_opens_a_stale_node_cannot_bring_the_driver_back()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        Should.Throw<KernelRefused>(() => desk.Kernel.OpenNode("/dev/nvidia0", desk.Kernel.StartProcess("netdata")));
        desk.Survey().Module("nvidia").State.ShouldBe(ModuleState.Absent);
    }

    [Fact]
    public void Udev_that_loads_the_driver_again_does_not_get_the_card()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.Faults.Before(
            call => call.Contains("vfio-pci/bind") && call.Contains(Gpu),
            kernel => kernel.Elsewhere(k =>
            {
                // No card waits for it, so it refuses to load: the override keeps ours away.
                Should.Throw<KernelRefused>(() => k.LoadModule("nvidia", [], TimeSpan.FromSeconds(1)));
            }));
        desk.Done(Target.Vfio);
        desk.DriverOf(Gpu).ShouldBe("vfio-pci");
    }

    [Theory]
    [InlineData("single-gpu", FreeBy.Unload)]
    [InlineData("single-gpu", FreeBy.Unbind)]
    [InlineData("single-gpu-595", FreeBy.Auto)]
    [InlineData("four-functions", FreeBy.Auto)]
    [InlineData("two-identical-gpus", FreeBy.Auto)]
    [InlineData("two-identical-gpus-modeset", FreeBy.Auto)]
    [InlineData("two-identical-gpus-595", FreeBy.Auto)]
    [InlineData("nouveau-first", FreeBy.Auto)]
    public void Without_its_journal_too_a_handover_that_was_killed_can_be_finished_in_either_direction(string host, FreeBy way)
    {
        Desk Boot() => new(Hosts.All.First(h => h.Name == host).Boot());
        var policy = Policy.Default with { By = way };
        var whole = Boot();
        whole.Done(Target.Vfio, "0", policy);
        var before = Boot().Picture();
        foreach (var next in new[] { Target.Vfio, Target.Host })
        {
            for (var life = 0; ; life++)
            {
                var desk = Boot();
                if (!Mortal.Dies(desk, life, desk.Running(Target.Vfio, "0", policy)))
                    break;

                // Straight to the plan, as if nobody had found a journal.
                desk.Done(next, "0", policy);
                if (next == Target.Vfio)
                {
                    desk.Survey().Modules.Count(m => m.Name == "nvidia_drm").ShouldBe(
                        whole.Survey().Modules.Count(m => m.Name == "nvidia_drm"), "the cards that stay keep their DRM");
                    desk.Done(Target.Host, "0", policy);
                }
                desk.Picture().ShouldBe(before, $"killed after {life} changes, then {next}\n{desk.Memo}");
            }
        }
    }
}
