using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Simulation.Sysfs;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>A card that NVIDIA's driver does not take back, and what brings it home.</summary>
public class Mending
{
    const string Gpu = "0000:01:00.0";

    static readonly Policy _unload = Policy.Default with { By = FreeBy.Unload };
    static readonly Policy _unbind = Policy.Default with { By = FreeBy.Unbind };

    /// <summary>A card on vfio-pci, with the modules gone or kept.</summary>
    static Desk Lent(FreeBy way, SimulatedKernel? kernel = null)
    {
        var desk = new Desk(kernel ?? Hosts.SingleGpu());
        desk.Done(Target.Vfio, "0", Policy.Default with { By = way });
        return desk;
    }

    static Policy WithRescan(FreeBy way) =>
        Policy.Default with { By = way, Resets = [Rung.Function, Rung.Bus, Rung.Rescan] };

    static readonly string[] _order = ["flr", "subordinate", "rescan"];

    /// <summary>The resets of the card itself, in their order.</summary>
    static string Resets(Desk desk) =>
        string.Join(' ', desk.Kernel.ResetLog.Where(r => r.StartsWith(Gpu, StringComparison.Ordinal)).Select(r => r.Split(' ')[1]));

    [Theory]
    [InlineData(FreeBy.Unload)]
    [InlineData(FreeBy.Unbind)]
    public void A_probe_that_fails_once_is_tried_once_more_and_nothing_is_reset(FreeBy way)
    {
        var desk = Lent(way);
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted, times: 1);
        desk.Done(Target.Host);
        desk.DriverOf(Gpu).ShouldBe("nvidia");
        desk.Kernel.ResetLog.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("flr", FreeBy.Unload)]
    [InlineData("flr", FreeBy.Unbind)]
    [InlineData("subordinate", FreeBy.Unload)]
    [InlineData("subordinate", FreeBy.Unbind)]
    [InlineData("rescan", FreeBy.Unload)]
    [InlineData("rescan", FreeBy.Unbind)]
    public void The_ladder_is_climbed_as_far_as_it_takes_and_no_further(string helps, FreeBy way)
    {
        var desk = new Desk(Hosts.SingleGpu());
        var before = desk.Picture();
        desk.Done(Target.Vfio, policy: Policy.Default with { By = way });
        desk.Kernel.FailProbeUntil(helps, "nvidia", At(Gpu), Errno.NotPermitted);

        desk.Done(Target.Host, policy: WithRescan(way));

        Resets(desk).ShouldBe(string.Join(' ', _order.TakeWhile(r => r != helps).Append(helps)));
        desk.Picture().ShouldBe(before, "all functions of the slot are where they were");
        desk.Kernel.Hazards.ShouldBeEmpty();
    }

    [Theory]
    [InlineData(FreeBy.Unload)]
    [InlineData(FreeBy.Unbind)]
    public void Where_nothing_helps_every_try_is_told_and_the_card_is_back_on_vfio_pci(FreeBy way)
    {
        var desk = Lent(way);
        var before = desk.Picture();
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted);

        var reason = desk.Run(Target.Host, policy: WithRescan(way)).ShouldBeOfType<Outcome.RolledBack>(desk.Memo.ToString()).Cause!.Reason;

        foreach (var told in new[]
        {
            "tried again: ", "after a reset of the function (flr): ", "after a reset of the bus below 0000:00:01.0: ",
            "after removal from the bus and a rescan: ",
        })
        {
            reason.ShouldContain(told);
        }
        Resets(desk).ShouldBe("flr subordinate rescan");
        desk.Picture().ShouldBe(before);
        desk.Kernel.Hazards.ShouldBeEmpty();
    }

    [Fact]
    public void Removal_and_rescan_are_for_who_allows_them()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.FailProbeUntil("rescan", "nvidia", At(Gpu), Errno.NotPermitted);
        desk.Run(Target.Host, policy: _unbind).ShouldBeOfType<Outcome.RolledBack>();
        Resets(desk).ShouldBe("flr subordinate");
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("/remove") && !call.Contains("rescan"));
    }

    [Fact]
    public void An_undo_mends_as_well_so_that_a_failed_hand_over_does_not_cost_the_host_its_card()
    {
        foreach (var policy in new[] { _unload, _unbind })
        {
            var desk = new Desk(Hosts.SingleGpu());
            var before = desk.Picture();
            desk.Kernel.Faults.Refuse(call => call.Contains("vfio-pci/bind") && call.Contains(Gpu), Errno.InputOutput);
            desk.Kernel.FailProbeUntil("subordinate", "nvidia", At(Gpu), Errno.NotPermitted);
            desk.Run(Target.Vfio, policy: policy).ShouldBeOfType<Outcome.RolledBack>(desk.Memo.ToString());
            desk.Picture().ShouldBe(before);
            Resets(desk).ShouldBe("flr subordinate");
            desk.Kernel.Hazards.ShouldBeEmpty();
        }
    }

    [Fact]
    public void The_plan_of_the_way_back_tells_the_ladder_and_the_way_out_has_it_for_its_undo_only()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Planned(Target.Host, policy: WithRescan(FreeBy.Unbind)).Steps().Select(s => s.SayElse()).OfType<string>().ShouldHaveSingleItem().ShouldBe(
            "if nvidia does not take it: once more, then a reset of the function (flr), then a reset of the bus below 0000:00:01.0, "
            + "then removal from the bus and a rescan");
        Lent(FreeBy.Unload).Planned(Target.Host).Steps().Select(s => s.SayElse()).OfType<string>().ShouldHaveSingleItem().ShouldBe(
            "if nvidia does not take 0000:01:00: once more, then a reset of the function (flr), then a reset of the bus below 0000:00:01.0");

        var plan = new Desk(Hosts.SingleGpu()).Planned(Target.Vfio);
        plan.Steps().ShouldAllBe(s => s.SayElse() == null);
        plan.Steps().Select(s => s.Undo()?.SayElse()).OfType<string>().ShouldHaveSingleItem();
    }

    [Fact]
    public void A_module_that_is_missing_or_broken_is_no_reason_for_a_reset()
    {
        var desk = Lent(FreeBy.Unload);
        desk.Kernel.Faults.Refuse("modprobe nvidia".Equals, Errno.Invalid);
        desk.Run(Target.Host).ShouldBeOfType<Outcome.RolledBack>();
        desk.Kernel.Calls.Count("modprobe nvidia".Equals).ShouldBe(2);
        desk.Kernel.ResetLog.ShouldBeEmpty();
    }

    [Fact]
    public void One_of_two_lent_cards_that_is_not_taken_is_mended_alone()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        desk.Done(Target.Vfio, "all");
        desk.Kernel.FailProbeUntil("subordinate", "nvidia", At(Second), Errno.NotPermitted);
        desk.Done(Target.Host, "all");
        (desk.DriverOf(Gpu), desk.DriverOf(Second)).ShouldBe(("nvidia", "nvidia"));
        desk.Kernel.ResetLog.ShouldBe([$"{Second} flr", $"{Second} subordinate", "0000:02:00.1 subordinate"]);
        desk.Kernel.Hazards.ShouldBeEmpty();
    }

    // ---- what the rungs say and leave out ----

    [Fact]
    public void A_function_without_a_reset_file_is_mended_by_the_next_rung()
    {
        var desk = Lent(FreeBy.Unbind, new HostBuilder()
            .With([.. Hosts.Card(1, bootVga: true).Select(f => f with { ResetMethods = [] })]).WithNvidiaDriver(new())
            .Loading("snd_hda_intel", "nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm").Boot());
        desk.Kernel.FailProbeUntil("subordinate", "nvidia", At(Gpu), Errno.NotPermitted);
        desk.Done(Target.Host);
        Resets(desk).ShouldBe("subordinate");
    }

    [Fact]
    public void A_bus_reset_that_is_listed_beside_a_sibling_is_not_believed()
    {
        var desk = Lent(FreeBy.Unbind, new HostBuilder()
            .With([.. Hosts.Card(1, bootVga: true).Select(f => f.ResetMethods.Count > 0 ? f with { ResetMethods = ["bus"] } : f)])
            .WithNvidiaDriver(new()).Loading("snd_hda_intel", "nvidia").Boot());
        var ladder = desk.Planned(Target.Host).Steps().OfType<GpuHandoff.Steps.Rebind>().Select(s => s.Ladder).OfType<Ladder>().ShouldHaveSingleItem();
        ladder.Rungs.ShouldBe([Rung.Bus]);
    }

    [Theory]
    [InlineData(Errno.NotTypewriter)]
    [InlineData(Errno.InputOutput)]
    public void A_reset_that_the_kernel_cannot_do_is_followed_by_the_next_rung(int errno)
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.FailProbeUntil("subordinate", "nvidia", At(Gpu), Errno.NotPermitted);
        desk.Kernel.Faults.Refuse(call => call.EndsWith($"{Gpu}/reset", StringComparison.Ordinal), errno);
        desk.Done(Target.Host);
        Resets(desk).ShouldBe("subordinate");
    }

    [Fact]
    public void A_bus_reset_that_meets_a_taken_lock_is_asked_once_more()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.FailProbeUntil("subordinate", "nvidia", At(Gpu), Errno.NotPermitted);
        desk.Kernel.Faults.Refuse(call => call.Contains("reset_subordinate"), Errno.TryAgain, once: true);
        desk.Done(Target.Host);
        desk.Kernel.Calls.Count(call => call.Contains("reset_subordinate")).ShouldBe(2);
    }

    [Fact]
    public void A_bus_reset_that_the_bridge_does_not_do_is_told()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted);
        desk.Kernel.Faults.Refuse(call => call.Contains("reset_subordinate"), Errno.NotTypewriter);
        desk.Run(Target.Host).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason.ShouldContain("ENOTTY");
    }

    [Fact]
    public void A_reset_that_hangs_is_told_as_a_reset_after_longer_than_the_kernels_own_minute()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted);
        desk.Kernel.Faults.Silent(call => call.EndsWith($"{Gpu}/reset", StringComparison.Ordinal));
        var began = desk.Kernel.Uptime;
        var stuck = desk.Run(Target.Host).ShouldBeOfType<Outcome.Stuck>();
        stuck.Silent.ShouldBeTrue();
        stuck.Failures.ShouldHaveSingleItem().Reason.ShouldContain($"{Gpu}/reset: no answer for 90 s");
        (desk.Kernel.Uptime - began).ShouldBeInRange(TimeSpan.FromSeconds(90), TimeSpan.FromSeconds(95));
    }

    [Fact]
    public void A_reset_is_begun_only_where_all_of_it_has_room_in_the_total()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted);
        var policy = _unbind with { Limits = Limits.Default with { Total = TimeSpan.FromSeconds(60) } };
        desk.Run(Target.Host, policy: policy).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason.ShouldContain("no time is left for a reset");
        desk.Kernel.ResetLog.ShouldBeEmpty();
    }

    // ---- never ----

    [Fact]
    public void A_stranger_on_the_bus_forbids_the_bus_reset()
    {
        var stranger = new PciHardware(new(0, 1, 1, 0), 0x144d, 0xa80a, 0x010802) { Behind = new(0, 0, 1, 0), IommuGroup = 40 };
        var desk = Lent(FreeBy.Unbind, new HostBuilder().With(Hosts.Card(1, bootVga: true)).With(stranger).WithNvidiaDriver(new())
            .Loading("snd_hda_intel", "nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm", "nvme").Boot());
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted);
        desk.Run(Target.Host, policy: WithRescan(FreeBy.Unbind)).ShouldBeOfType<Outcome.RolledBack>();
        Resets(desk).ShouldBe("flr rescan");
        desk.Kernel.ResetLog.ShouldAllBe(r => !r.Contains("01:01.0"));
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("reset_subordinate") && !call.Contains("01:01.0"));
    }

    [Fact]
    public void A_stranger_that_came_to_the_bus_since_the_plan_was_made_forbids_the_bus_reset()
    {
        var stranger = new PciHardware(new(0, 1, 1, 0), 0x144d, 0xa80a, 0x010802) { Behind = new(0, 0, 1, 0), IommuGroup = 40 };
        var desk = Lent(FreeBy.Unbind, new HostBuilder().With(Hosts.Card(1, bootVga: true)).With(stranger).WithNvidiaDriver(new())
            .Loading("snd_hda_intel", "nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm").Boot());
        desk.Kernel.Elsewhere(k => k.Write(new("/sys/bus/pci/devices/0000:01:01.0/remove"), "1", TimeSpan.FromSeconds(1)));
        var plan = desk.Planned(Target.Host);
        desk.Kernel.Elsewhere(k => k.Write(new("/sys/bus/pci/rescan"), "1", TimeSpan.FromSeconds(1)));
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted);
        desk.Run(plan).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason.ShouldContain("0000:01:01.0 is on the same bus");
        desk.Kernel.ResetLog.Where(r => r.Contains("subordinate")).ShouldBeEmpty();
    }

    [Fact]
    public void No_function_of_a_slot_is_taken_off_the_bus_alone()
    {
        var desk = Lent(FreeBy.Unbind, Hosts.FourFunctions());
        desk.Kernel.FailProbeUntil("rescan", "nvidia", At(Gpu), Errno.NotPermitted);
        desk.Done(Target.Host, policy: WithRescan(FreeBy.Unbind));
        desk.Kernel.Calls.Where(call => call.EndsWith("/remove", StringComparison.Ordinal)).Select(call => call.Split('/')[^2]).ShouldBe(
            ["0000:01:00.3", "0000:01:00.2", "0000:01:00.1", "0000:01:00.0"]);
        desk.Survey().Gpus.Single().Functions.Select(f => f.Owner.Driver).ShouldBe(["nvidia", "snd_hda_intel", "xhci_hcd", "nvidia-gpu"]);
        desk.Kernel.Hazards.ShouldBeEmpty();
    }

    [Fact]
    public void A_sibling_on_a_driver_of_the_host_forbids_what_would_hit_it()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.Elsewhere(k =>
        {
            k.Write(new($"/sys/bus/pci/devices/{Audio}/driver_override"), "\n", TimeSpan.FromSeconds(1));
            k.Write(new("/sys/bus/pci/drivers/vfio-pci/unbind"), Audio, TimeSpan.FromSeconds(1));
            k.Write(new("/sys/bus/pci/drivers/snd_hda_intel/bind"), Audio, TimeSpan.FromSeconds(1));
        });
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted);
        var reason = desk.Run(Target.Host, policy: WithRescan(FreeBy.Unbind)).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason;
        reason.ShouldContain($"not done, {Audio} is on snd_hda_intel");
        Resets(desk).ShouldBe("flr");
        desk.Kernel.Hazards.ShouldBeEmpty();
    }

    [Fact]
    public void A_vm_that_opens_a_sibling_meanwhile_forbids_what_would_hit_it()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted);
        desk.Kernel.Faults.Before(call => call.Contains("vfio-pci/unbind"), k => k.Later(TimeSpan.FromMilliseconds(10), () => k.StartVm("111", [At(Audio)])));
        var outcome = desk.Run(Target.Host, policy: WithRescan(FreeBy.Unbind));
        desk.Kernel.ResetLog.ShouldAllBe(r => r.EndsWith(" flr", StringComparison.Ordinal), outcome.ToString());
        desk.Kernel.Hazards.ShouldBeEmpty();
    }

    [Fact]
    public void Another_driver_that_took_the_card_is_no_reason_for_a_reset()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.Faults.Ignore(call => call.Contains("nvidia/bind"));
        desk.Kernel.Faults.Before(call => call.Contains("nvidia/bind"), k => k.Elsewhere(other =>
        {
            other.Write(new($"/sys/bus/pci/devices/{Gpu}/driver_override"), "nouveau\n", TimeSpan.FromSeconds(1));
            other.LoadModule("nouveau", [], TimeSpan.FromSeconds(1));
        }));
        desk.Run(Target.Host).ShouldNotBeOfType<Outcome.Done>();
        desk.Kernel.ResetLog.ShouldBeEmpty();
        desk.Kernel.Hazards.ShouldBeEmpty();
    }

    // ---- after a reset ----

    [Theory]
    [InlineData("flr")]
    [InlineData("subordinate")]
    public void A_card_that_answers_no_more_after_a_reset_is_lost_and_nothing_is_bound_to_it(string by)
    {
        var desk = Lent(FreeBy.Unbind);
        var binds = desk.Kernel.Calls.Count;
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted);
        desk.Kernel.WhenReset = (function, how) =>
        {
            if (function == At(Gpu) && how == by)
                desk.Kernel.LoseDevice(function);
        };

        var stuck = desk.Run(Target.Host, policy: WithRescan(FreeBy.Unbind)).ShouldBeOfType<Outcome.Stuck>();

        stuck.Silent.ShouldBeFalse();
        stuck.Failures[0].Reason.ShouldContain("the card is lost");
        stuck.Failures[0].Reason.ShouldContain("Switch the machine off and on again");
        stuck.Failures.Skip(1).ShouldContain(f => f.Reason.Contains("vendor ID reads ffff"));
        var calls = desk.Kernel.Calls.Skip(binds).ToList();
        var reset = calls.FindLastIndex(c => c.Contains("reset"));
        calls.Skip(reset).ShouldAllBe(c => !c.Contains("/bind"));
    }

    [Fact]
    public void A_card_that_a_rescan_does_not_find_is_lost()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted);
        desk.Kernel.Faults.Before(call => call.EndsWith($"{Gpu}/remove", StringComparison.Ordinal), k => k.LoseDevice(At(Gpu)));
        var stuck = desk.Run(Target.Host, policy: WithRescan(FreeBy.Unbind)).ShouldBeOfType<Outcome.Stuck>();
        stuck.Failures[0].Reason.ShouldContain($"{Gpu} did not come back to the bus");
        desk.DriverOf(Audio).ShouldNotBe("nvidia");
    }

    [Theory]
    [InlineData(0UL, "had 256M before it and has nothing now")]
    [InlineData(64UL << 20, "had 256M before it and has 64M now")]
    public void A_window_that_is_smaller_after_a_reset_is_a_failure_that_names_both_sizes(ulong size, string told)
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.FailProbe("nvidia", At(Gpu), Errno.NotPermitted);
        desk.Kernel.ShrinkBarAtRescan(At(Gpu), 1, size);
        desk.Kernel.WhenReset = (_, how) =>
        {
            if (how == "rescan")
                desk.Kernel.FailProbe("nvidia", At(Gpu), 0);
        };
        var reason = desk.Run(Target.Host, policy: WithRescan(FreeBy.Unbind)).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason;
        reason.ShouldContain($"BAR 1 of {Gpu} {told}");
    }

    [Fact]
    public void A_window_that_a_function_reset_lost_and_the_rescan_found_again_is_no_failure()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.FailProbeUntil("rescan", "nvidia", At(Gpu), Errno.NotPermitted);
        desk.Kernel.WhenReset = (function, how) =>
        {
            if (function == At(Gpu) && how == "flr")
                desk.Kernel.ShrinkBar(function, 1, 0);
        };
        desk.Done(Target.Host, policy: WithRescan(FreeBy.Unbind));
    }

    [Fact]
    public void A_rescan_that_is_refused_on_the_bus_is_made_for_the_whole_machine_rather_than_losing_the_card()
    {
        var desk = Lent(FreeBy.Unbind);
        desk.Kernel.FailProbeUntil("rescan", "nvidia", At(Gpu), Errno.NotPermitted);
        desk.Kernel.Faults.Refuse(call => call.Contains("pci_bus"), Errno.InputOutput);
        var outcome = desk.Run(Target.Host, policy: WithRescan(FreeBy.Unbind));
        desk.Survey().Gpus.Single().Functions.Length.ShouldBe(2, outcome.ToString());
    }

    [Fact]
    public void A_driver_that_grabs_the_card_at_the_rescan_is_made_to_let_go()
    {
        // Aimed at nothing for a moment, a card that comes back new is nouveau's, where nouveau is loaded.
        var desk = Lent(FreeBy.Unload);
        desk.Kernel.Elsewhere(k => k.LoadModule("nouveau", [], TimeSpan.FromSeconds(1)));
        desk.Kernel.FailProbeUntil("rescan", "nvidia", At(Gpu), Errno.NotPermitted);
        desk.Done(Target.Host, policy: WithRescan(FreeBy.Unload));
        desk.DriverOf(Gpu).ShouldBe("nvidia");
        desk.Kernel.Calls.ShouldContain(call => call.Contains("nouveau/unbind"));
    }

    // ---- asked for on the way out ----

    [Fact]
    public void Nothing_is_reset_on_the_way_out_unless_somebody_asks()
    {
        foreach (var (_, boot) in Hosts.All)
        {
            var desk = new Desk(boot());
            if (desk.Survey().NvidiaGpus().Any() && desk.Plan(Target.Vfio, "0") is GpuHandoff.Plans.Answer.Planned { Plan: var plan })
                desk.Run(plan);
            desk.Kernel.ResetLog.ShouldBeEmpty();
        }
    }

    [Theory]
    [InlineData(FreeBy.Unload)]
    [InlineData(FreeBy.Unbind)]
    public void Asked_for_the_card_is_reset_once_while_no_driver_has_it(FreeBy way)
    {
        var desk = new Desk(Hosts.SingleGpu());
        var policy = Policy.Default with { By = way, ResetFirst = true };
        desk.Done(Target.Vfio, policy: policy);
        desk.Kernel.ResetLog.ShouldBe([$"{Gpu} flr"]);
        desk.Kernel.Hazards.ShouldBeEmpty();
        desk.Done(Target.Vfio, policy: policy);
        desk.Kernel.ResetLog.Count.ShouldBe(1, "on vfio-pci already: it resets the card itself when the VM opens it");
    }

    [Fact]
    public void Asked_for_and_not_to_be_had_a_reset_is_left_out_with_a_note()
    {
        var desk = new Desk(new HostBuilder().With([.. Hosts.Card(1).Where(f => f.Class != 0x060400).Select(f => f with { Behind = null, ResetMethods = [] })])
            .WithNvidiaDriver(new()).Loading("snd_hda_intel", "nvidia").Boot());
        var plan = desk.Planned(Target.Vfio, policy: Policy.Default with { ResetFirst = true });
        plan.Notes.ShouldHaveSingleItem().ShouldContain("is not reset");
        desk.Run(plan).ShouldBeOfType<Outcome.Done>();
        desk.Kernel.ResetLog.ShouldBeEmpty();
    }

    [Theory]
    [InlineData(Errno.NotTypewriter)]
    [InlineData(Errno.InputOutput)]
    public void Asked_for_and_refused_the_next_rung_is_taken_and_where_none_works_all_is_rolled_back(int errno)
    {
        var policy = _unload with { ResetFirst = true };
        var desk = new Desk(Hosts.SingleGpu());
        var before = desk.Picture();
        desk.Kernel.Faults.Refuse(call => call.EndsWith($"{Gpu}/reset", StringComparison.Ordinal), errno);
        desk.Done(Target.Vfio, policy: policy);
        Resets(desk).ShouldBe("subordinate");
        desk.Done(Target.Host);

        desk.Kernel.Faults.Refuse(call => call.Contains("reset_subordinate"), errno);
        desk.Run(Target.Vfio, policy: policy).ShouldBeOfType<Outcome.RolledBack>().Cause!.Reason.ShouldContain("reset_subordinate");
        desk.Picture().ShouldBe(before);
        desk.Kernel.Hazards.ShouldBeEmpty();
    }

    [Fact]
    public void During_a_reset_the_card_is_awake_even_where_nobody_held_it_before()
    {
        var desk = new Desk(Hosts.AlreadyOnVfio());
        desk.Kernel.Read($"/sys/bus/pci/devices/{Gpu}/power/control").ShouldBe("auto");
        desk.Kernel.FailProbeUntil("flr", "nvidia", At(Gpu), Errno.NotPermitted);
        string? during = null;
        desk.Kernel.WhenReset = (_, _) => during = desk.Kernel.Read(new SysPath($"/sys/bus/pci/devices/{Gpu}/power/control"))
            + desk.Kernel.Read(new SysPath($"/sys/bus/pci/devices/{Gpu}/d3cold_allowed"));
        desk.Done(Target.Host);
        during.ShouldBe("on0");
        desk.Kernel.Read($"/sys/bus/pci/devices/{Gpu}/d3cold_allowed").ShouldBe("1");
    }
}
