using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Runs;

/// <summary>Several runs on one host, and others who have the card: who waits, for whom, and for how long.</summary>
public class TakingTurns
{
    const string First = "0000:01:00.0";
    const string Second = "0000:02:00.0";

    static readonly Policy _unbind = Policy.Default with { By = FreeBy.Unbind };

    // Simulated time passes for the first run, too, while the second one waits in the middle of it.
    static readonly Limits _short = Limits.Default with { Total = TimeSpan.FromSeconds(20) };

    [Fact]
    public void A_second_run_for_the_same_card_waits_says_for_whom_and_is_refused_at_its_limit_without_a_write()
    {
        var desk = new Desk(Hosts.SingleGpu());
        Ending? other = null;
        var (before, after) = (0, 0);
        desk.Kernel.Faults.Before(3, kernel =>
        {
            before = kernel.Calls.Count;
            other = desk.Turn(9001).HandOver(Target.Host, null, Policy.Default with { Limits = _short }, CancellationToken.None);
            after = kernel.Calls.Count;
        });

        desk.HandOver(Target.Vfio).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());

        other.ShouldBeOfType<Ending.Refused>().Why.Findings.ShouldHaveSingleItem().Code.ShouldBe("locked");
        after.ShouldBe(before);
        desk.Memo.Lines.ShouldContain($"waits waiting for 9000 gpu-handoff, which is at work on {First}");
    }

    [Fact]
    public void Runs_for_two_cards_that_change_no_module_go_on_side_by_side()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus(new("580.126.20")));
        desk.Kernel.Elsewhere(kernel => kernel.LoadModule("vfio_pci", [], TimeSpan.FromSeconds(1)));
        Ending? other = null;
        desk.Kernel.Faults.Before(2, _ => other = desk.Turn(9001).HandOver(Target.Vfio, Second, _unbind, CancellationToken.None));

        desk.HandOver(Target.Vfio, First, _unbind).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());

        other.ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());
        (desk.DriverOf(First), desk.DriverOf(Second)).ShouldBe(("vfio-pci", "vfio-pci"));
        desk.Locks.IsFree().ShouldBeTrue();
    }

    [Fact]
    public void A_run_that_changes_modules_waits_for_one_that_is_at_work_on_another_card()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        desk.Kernel.Elsewhere(kernel => kernel.LoadModule("vfio_pci", [], TimeSpan.FromSeconds(1)));
        Ending? other = null;
        desk.Kernel.Faults.Before(2, _ => other = desk.Turn(9001).HandOver(Target.Vfio, Second, _unbind with { Limits = _short }, CancellationToken.None));

        // Driver 550 has to take nvidia_drm down for a moment, and that is everybody's.
        desk.HandOver(Target.Vfio, First, _unbind).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());

        other.ShouldBeOfType<Ending.Refused>().Why.Findings.ShouldHaveSingleItem().What.ShouldContain("9000 gpu-handoff is at work on the driver's modules");
        desk.DriverOf(Second).ShouldBe("nvidia");
    }

    [Fact]
    public void A_return_waits_for_a_vm_that_lets_go_in_time()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        var vm = desk.Kernel.StartVm("101", [.. desk.Survey().Gpus[0].Functions.Select(f => f.Address)]);
        desk.Kernel.Later(TimeSpan.FromSeconds(8), () => desk.Kernel.StopVm(vm));

        desk.HandOver(Target.Host).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());

        desk.Memo.Lines.ShouldContain(line => line.StartsWith("waits waiting for a VM to let go: "));
        desk.DriverOf(First).ShouldBe("nvidia");
    }

    [Fact]
    public void A_return_gives_up_at_its_limit_where_a_vm_keeps_the_card_and_has_written_nothing()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        desk.Kernel.StartVm("101", [.. desk.Survey().Gpus[0].Functions.Select(f => f.Address)]);
        var (before, calls, began) = (desk.Kernel.Describe(), desk.Kernel.Calls.Count, desk.Kernel.Uptime);

        var refused = desk.HandOver(Target.Host, policy: Policy.Default with { Patience = TimeSpan.FromSeconds(10) }).ShouldBeOfType<Ending.Refused>();

        refused.Why.Findings.ShouldHaveSingleItem().Code.ShouldBe("vm-has-the-gpu");
        (desk.Kernel.Uptime - began).ShouldBeInRange(TimeSpan.FromSeconds(10), TimeSpan.FromSeconds(11));
        (desk.Kernel.Describe(), desk.Kernel.Calls.Count).ShouldBe((before, calls));
        desk.Locks.IsFree().ShouldBeTrue();
    }

    [Fact]
    public void Told_to_stop_while_it_waits_a_run_stops_at_once()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        desk.Kernel.StartVm("101", [.. desk.Survey().Gpus[0].Functions.Select(f => f.Address)]);
        using var stop = new CancellationTokenSource();
        desk.Kernel.Later(TimeSpan.FromSeconds(2), stop.Cancel);
        var began = desk.Kernel.Uptime;

        desk.HandOver(Target.Host, stop: stop.Token).ShouldBeOfType<Ending.Refused>();

        (desk.Kernel.Uptime - began).ShouldBeLessThan(TimeSpan.FromSeconds(4));
    }

    [Fact]
    public void A_wedged_card_does_not_keep_another_from_its_hand_over_even_where_its_override_cannot_be_read()
    {
        var kernel = Hosts.TwoIdenticalGpus(new("580.126.20"));
        kernel.OverrideTakesDeviceLock = true;
        var desk = new Desk(kernel);
        desk.Kernel.Faults.Silent(call => call.Contains("nvidia/unbind"), once: true);
        desk.HandOver(Target.Vfio, First, _unbind).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Stuck>().Silent.ShouldBeTrue();
        var began = desk.Kernel.Uptime;

        desk.HandOver(Target.Vfio, Second, _unbind).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());

        (desk.Kernel.Uptime - began).ShouldBeLessThan(TimeSpan.FromSeconds(5));
        desk.Survey().Wedges.ShouldHaveSingleItem().Call.ShouldContain("unbind");
    }

    [Fact]
    public void A_card_whose_lock_somebody_else_holds_is_told_before_anything_is_written()
    {
        var kernel = Hosts.SingleGpu();
        kernel.OverrideTakesDeviceLock = true;
        var desk = new Desk(kernel);
        // Another tool's unbind under a user, as in every forum.
        using var user = kernel.OpenNode("/dev/nvidia0", kernel.StartProcess("ollama"));
        kernel.Elsewhere(other => Should.Throw<KernelSilent>(
            () => other.Write(new("/sys/bus/pci/drivers/nvidia/unbind"), First, TimeSpan.FromSeconds(1))));
        var calls = kernel.Calls.Count;

        var silent = desk.HandOver(Target.Vfio).ShouldBeOfType<Ending.Unanswered>().Call;

        silent.Call.ShouldContain(First);
        kernel.Calls.Count.ShouldBe(calls);
        desk.Ledger.Wedges().ShouldHaveSingleItem().Gpu.ToString().ShouldBe(First);
        desk.HandOver(Target.Vfio).ShouldBeOfType<Ending.Refused>("it is not asked a second time").Why.Findings[0].Code.ShouldBe("gpu-is-wedged");
    }

    [Fact]
    public void A_mark_is_taken_off_only_when_the_call_has_come_back()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var gpu = desk.Survey().Gpus[0].Address;
        var boot = desk.Survey().BootId;
        desk.Ledger.Mark(new(boot, gpu, "write to unbind", TimeSpan.FromSeconds(1), new(123456, 42, "state D"), []));

        desk.Turn().Unwedge().ShouldBeEmpty("no such process is left");
        desk.Ledger.Wedges().ShouldBeEmpty();

        var process = desk.Kernel.StartProcess("gpu-handoff");
        var started = process.Started;
        desk.Ledger.Mark(new(boot, gpu, "write to unbind", TimeSpan.FromSeconds(1), new(process.Pid, started, "state D"), []));
        desk.Turn().Unwedge().ShouldHaveSingleItem().ShouldBeOfType<Ending.Refused>().Why.Findings[0].Evidence[0].ShouldContain("is still in: write to unbind");
        desk.Ledger.Wedges().ShouldHaveSingleItem();
    }

    [Fact]
    public void A_mark_without_a_process_is_taken_off_when_looks_at_the_gpu_answer_and_else_names_one_from_then_on()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var gpu = desk.Survey().Gpus[0].Address;
        // As versions before this one wrote them down for a program that did not end.
        var boot = desk.Survey().BootId;
        Wedge Old() => new(boot, gpu, "/usr/bin/docker start 0123456789ab", TimeSpan.FromSeconds(1), null, []);
        desk.Ledger.Mark(Old());
        desk.Turn().Unwedge().ShouldBeEmpty();
        desk.Ledger.Wedges().ShouldBeEmpty();

        // Something has the lock in earnest.
        using var user = desk.Kernel.OpenNode("/dev/nvidia0", desk.Kernel.StartProcess("ollama"));
        desk.Kernel.Elsewhere(other => Should.Throw<KernelSilent>(
            () => other.Write(new("/sys/bus/pci/drivers/nvidia/unbind"), First, TimeSpan.FromSeconds(1))));
        desk.Kernel.OverrideTakesDeviceLock = true;
        desk.Ledger.Mark(Old());
        desk.Turn().Unwedge().ShouldHaveSingleItem().ShouldBeOfType<Ending.Refused>();
        var process = desk.Ledger.Wedges().ShouldHaveSingleItem().Process.ShouldNotBeNull();
        desk.Turn().Unwedge().ShouldHaveSingleItem().ShouldBeOfType<Ending.Refused>().Why.Findings[0].Evidence[0].ShouldContain($"process {process.Pid} is still in");
        desk.Kernel.EndProcess(desk.Kernel.RunningProcesses.Single(p => p.Pid == process.Pid));
        desk.Turn().Unwedge().ShouldBeEmpty();
        desk.Ledger.Wedges().ShouldBeEmpty();
    }

    [Fact]
    public void What_another_boot_left_is_dropped_and_nothing_is_written_for_it()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var home = desk.Picture();
        Mortal.Dies(desk, 9, mortal => desk.Turn(666, mortal).HandOver(Target.Vfio, null, Policy.Default, CancellationToken.None)).ShouldBeTrue();
        desk.Ledger.Unfinished().ShouldHaveSingleItem();
        desk.Ledger.Mark(new(desk.Kernel.BootId, desk.Survey().Gpus[0].Address, "x", TimeSpan.Zero, null, []));
        var after = new Desk(Hosts.SingleGpu());
        after.Kernel.BootId = "another-boot";

        new Turn(after.Kernel, desk.Ledger, new MemoryLocks(), desk.Memo).Recover(Policy.Default, wait: true, CancellationToken.None).ShouldBeEmpty();

        after.Kernel.Calls.ShouldBeEmpty();
        after.Picture().ShouldBe(home);
        desk.Ledger.Unfinished().ShouldBeEmpty();
        desk.Ledger.Wedges().ShouldBeEmpty();
        desk.Ledger.Homes().ShouldBeEmpty();
    }

    [Fact]
    public void A_vm_that_began_after_a_crash_keeps_its_card()
    {
        var desk = new Desk(Hosts.SingleGpu());
        // Killed with every function on vfio-pci but the last word of the plan unsaid; then somebody starts the VM by hand.
        Mortal.DiesBefore(desk, call => call.Contains("01:00.0/power/control"), mortal =>
            desk.Turn(666, mortal).HandOver(Target.Vfio, null, Policy.Default, CancellationToken.None)).ShouldBeTrue();
        var vm = desk.Kernel.StartVm("101", [.. desk.Survey().Gpus[0].Functions.Select(f => f.Address)]);

        desk.Recover();

        desk.Kernel.Hazards.ShouldBeEmpty();
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("vfio-pci/unbind"));
        desk.DriverOf(First).ShouldBe("vfio-pci");
        vm.Process.Open.ShouldNotBeEmpty();
    }

    [Fact]
    public void A_card_that_left_the_bus_in_a_reset_is_found_again_or_told_as_lost_and_never_taken_for_done()
    {
        foreach (var comesBack in new[] { true, false })
        {
            var desk = new Desk(Hosts.SingleGpu());
            var home = desk.Picture();
            Mortal.DiesBefore(desk, call => call.Contains("vfio-pci/bind"), mortal =>
                desk.Turn(666, mortal).HandOver(Target.Vfio, null, Policy.Default, CancellationToken.None)).ShouldBeTrue();
            // As a reset by removal leaves it, where its process is killed before the rescan.
            if (!comesBack)
                desk.Kernel.LoseDevice(desk.Survey().Gpus[0].Address);
            foreach (var function in desk.Survey().Gpus[0].Functions.Where(f => f.Owner.Driver is null))
                desk.Kernel.Elsewhere(kernel => kernel.Write(new($"/sys/bus/pci/devices/{function.Address}/remove"), "1", TimeSpan.FromSeconds(1)));

            var ending = desk.Recover().ShouldHaveSingleItem();

            if (comesBack)
            {
                ending.ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());
                desk.Picture().ShouldBe(home);
                desk.Ledger.Unfinished().ShouldBeEmpty();
            }
            else if (ending is Ending.Refused { Why.Findings: [var lost] })
            {
                lost.Code.ShouldBe("gpu-is-lost");
                desk.Ledger.Unfinished().ShouldHaveSingleItem();
            }
        }
    }

    [Fact]
    public void A_record_of_another_boot_makes_no_function_a_lost_one()
    {
        var desk = new Desk(Hosts.AlreadyOnVfio());
        var gpu = desk.Survey().Gpus[0].Address;
        // Another card was in that slot, with a USB controller.
        desk.Ledger.Keep(new("an-earlier-boot", gpu, [new(gpu, new("nvidia")), new(gpu with { Function = 2 }, new("xhci_hcd"))], [], []));
        Mortal.DiesBefore(desk, call => call.Contains("vfio-pci/unbind"), mortal =>
            desk.Turn(666, mortal).HandOver(Target.Host, null, Policy.Default, CancellationToken.None)).ShouldBeTrue();

        desk.Recover().ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>(desk.Memo.ToString()).Outcome.ShouldBeOfType<Outcome.Done>();

        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("rescan"));
        desk.DriverOf(gpu.ToString()).ShouldBe("nvidia");
    }

    [Fact]
    public void Recover_leaves_a_run_alone_that_is_at_work()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.Faults.Before(5, kernel =>
        {
            var calls = kernel.Calls.Count;
            desk.Turn(9001).Recover(Policy.Default, wait: false, CancellationToken.None).ShouldBeEmpty();
            kernel.Calls.Count.ShouldBe(calls);
        });
        desk.HandOver(Target.Vfio).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());
    }
}
