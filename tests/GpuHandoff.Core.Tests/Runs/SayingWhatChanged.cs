using System.Reflection;
using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Runs;

/// <summary>"Nothing was changed" is said where nothing was, and nowhere else.</summary>
public class SayingWhatChanged
{
    const string Nothing = "nothing was changed";

    static readonly LedgerRefused _full = new("no space left on device", "make room");

    static bool DiesAfter(Desk desk, int changes, Target target) =>
        Mortal.Dies(desk, changes, mortal => desk.Turn(666, mortal).HandOver(target, null, Policy.Default, CancellationToken.None));

    [Fact]
    public void A_gpu_that_was_taken_back_counts_as_taken_back_though_the_disk_is_too_full_to_say_so()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var home = desk.Picture();
        DiesAfter(desk, 12, Target.Vfio).ShouldBeTrue();
        desk.Picture().ShouldNotBe(home);
        desk.Ledger.Before = what =>
        {
            if (what.Contains("closes"))
                throw _full;
        };

        var turn = desk.Turn();
        var ending = turn.Recover(Policy.Default, wait: true, CancellationToken.None).ShouldHaveSingleItem();

        ending.ShouldBeOfType<Ending.Ran>(desk.Memo.ToString()).Outcome.ShouldBeOfType<Outcome.Done>();
        desk.Picture().ShouldBe(home);
        desk.Memo.Lines.ShouldContain($"warns {_full.Message}; {_full.Hint}");
        turn.Footprint.Count.ShouldBeGreaterThan(0);

        // The next look finds nothing to do but that line, and says so with the reason.
        var again = desk.Turn();
        again.Recover(Policy.Default, wait: true, CancellationToken.None).ShouldHaveSingleItem().ShouldBeOfType<Ending.Refused>().Why.What.ShouldBe(_full.Message);
        again.Footprint.State().ShouldBe(Nothing);
        desk.Turn().Recover(Policy.Default, wait: false, CancellationToken.None).ShouldHaveSingleItem();
        desk.Turn().Recover(Policy.Default, wait: false, CancellationToken.None).ShouldBeEmpty("the timer has told it");

        desk.Ledger.Before = null;
        desk.Recover();
        desk.Ledger.Unfinished().ShouldBeEmpty();
    }

    // A run killed after each of its changes, and the next one refused where it would begin: by a disk that is full by then.
    [Theory]
    [InlineData(Target.Vfio)]
    [InlineData(Target.Host)]
    public void A_run_that_ends_an_earlier_one_and_is_refused_then_says_that_it_changed_something_and_only_then(Target target)
    {
        var (changed, unchanged, died) = (0, 0, true);
        for (var life = 0; died; life++)
        {
            var desk = new Desk(Hosts.SingleGpu());
            if (target == Target.Host)
                desk.Done(Target.Vfio);
            died = DiesAfter(desk, life, target);
            var (calls, turn) = (desk.Kernel.Calls.Count, desk.Turn());
            desk.Ledger.Before = what =>
            {
                if (what.StartsWith("keep", StringComparison.Ordinal))
                    throw _full;
            };

            if (turn.HandOver(Target.Vfio, null, Policy.Default, CancellationToken.None) is not Ending.Refused)
                continue;

            var isSo = desk.Kernel.Calls.Count == calls;
            (turn.Footprint.State() == Nothing).ShouldBe(isSo, $"killed after {life}: {turn.Footprint.State()}");
            (isSo ? ref unchanged : ref changed)++;
        }
        changed.ShouldBeGreaterThan(3);
        unchanged.ShouldBeGreaterThan(0);
    }

    [Fact]
    public void A_scan_of_the_bus_that_found_nothing_was_a_change_all_the_same()
    {
        var desk = new Desk(Hosts.SingleGpu());
        Mortal.DiesBefore(desk, call => call.Contains("vfio-pci/bind"), mortal =>
            desk.Turn(666, mortal).HandOver(Target.Vfio, null, Policy.Default, CancellationToken.None)).ShouldBeTrue();
        foreach (var function in desk.Survey().Gpus[0].Functions.Where(f => f.Owner.Driver is null))
        {
            desk.Kernel.LoseDevice(function.Address);
            desk.Kernel.Elsewhere(kernel => kernel.Write(new($"/sys/bus/pci/devices/{function.Address}/remove"), "1", TimeSpan.FromSeconds(1)));
        }
        var turn = desk.Turn();

        turn.Recover(Policy.Default, wait: true, CancellationToken.None).ShouldHaveSingleItem().ShouldBeOfType<Ending.Refused>().Why.Findings[0].Code.ShouldBe("gpu-is-lost");

        turn.Footprint.Changes().ShouldBe(["scan the PCI bus again"]);
        turn.Footprint.State().ShouldBe("this changed nothing; what the same run had to do before it stays done: scan the PCI bus again");
    }

    [Fact]
    public void A_call_that_does_not_come_back_after_an_earlier_run_was_ended_is_told_with_that()
    {
        var desk = new Desk(Hosts.SingleGpu());
        DiesAfter(desk, 12, Target.Vfio).ShouldBeTrue();
        var turn = desk.Turn();
        // Another run's call takes the card's lock when that is done.
        desk.Ledger.Before = what =>
        {
            if (!what.Contains("closes"))
                return;
            desk.Ledger.Before = null;
            desk.Kernel.OverrideTakesDeviceLock = true;
            desk.Kernel.OpenNode("/dev/nvidia0", desk.Kernel.StartProcess("ollama"));
            desk.Kernel.Elsewhere(other => Should.Throw<KernelSilent>(
                () => other.Write(new("/sys/bus/pci/drivers/nvidia/unbind"), "0000:01:00.0", TimeSpan.FromSeconds(1))));
        };

        turn.HandOver(Target.Vfio, null, Policy.Default, CancellationToken.None).ShouldBeOfType<Ending.Unanswered>();

        turn.Footprint.State().ShouldStartWith("this changed nothing; what the same run had to do before it stays done (");
    }

    [Fact]
    public void A_return_that_is_refused_beside_a_way_back_that_got_stuck_is_stuck()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        Mortal.DiesBefore(desk, call => call.Contains("modprobe nvidia"), mortal =>
            desk.Turn(666, mortal).HandOver(Target.Host, null, Policy.Default, CancellationToken.None)).ShouldBeTrue();
        // An upgrade has taken the driver away meanwhile, and vfio-pci does not take the card back.
        desk.Kernel.Faults.Refuse(call => call.Contains("vfio-pci/bind"), Errno.InputOutput);
        var turn = desk.Turn(through: WithoutNvidia.To(desk.Kernel));

        var ending = turn.Recover(Policy.Default, wait: true, CancellationToken.None).ShouldHaveSingleItem();

        ending.ShouldBeOfType<Ending.Ran>(desk.Memo.ToString()).Outcome.ShouldBeOfType<Outcome.Stuck>();
        turn.Footprint.Count.ShouldBeGreaterThan(0);
    }

    [Fact]
    public void A_hand_over_leaves_a_footprint_of_every_step_that_had_something_to_do()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var turn = desk.Turn();
        var outcome = turn.HandOver(Target.Vfio, null, Policy.Default, CancellationToken.None).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>();
        turn.Footprint.Count.ShouldBe(outcome.Changes);
        var again = desk.Turn();
        again.HandOver(Target.Vfio, null, Policy.Default, CancellationToken.None).ShouldBeOfType<Ending.Ran>();
        again.Footprint.State().ShouldBe(Nothing);
    }
}

/// <summary>A kernel for which no module of NVIDIA's is installed any more.</summary>
public class WithoutNvidia : DispatchProxy
{
    IKernel? _kernel;

    public static IKernel To(IKernel kernel)
    {
        var proxy = Create<IKernel, WithoutNvidia>();
        ((WithoutNvidia)(object)proxy)._kernel = kernel;
        return proxy;
    }

    protected override object? Invoke(MethodInfo? targetMethod, object?[]? args) =>
        targetMethod!.Name == nameof(IKernel.CanLoad) && args![0] is string module && module.StartsWith("nvidia", StringComparison.Ordinal)
            ? false
            : targetMethod.Invoke(_kernel, BindingFlags.DoNotWrapExceptions, null, args, null);
}
