using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>An administrator who has drained a card wants it closed: whatever becomes of our run, it stays so.</summary>
public class DrainedByOthers
{
    const string Gpu = "0000:01:00.0";

    static readonly Policy _unbind = Policy.Default with { By = FreeBy.Unbind };

    static Desk Drained(bool byOthers = true)
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus(new("580.126.20")));
        desk.Kernel.InstallNvidiaSmi();
        if (byOthers)
            desk.Kernel.Elsewhere(kernel => kernel.RunProgram(Programs.NvidiaSmi, ["drain", "-p", Gpu, "-m", "1"], TimeSpan.FromSeconds(1)).Exit.ShouldBe(0));
        return desk;
    }

    static int Asked(Desk desk) => desk.Kernel.Asked.Count(call => call.Contains("drain") && call.Contains("-q"));

    [Fact]
    public void A_hand_over_goes_on_and_a_warning_tells_of_it()
    {
        var desk = Drained();
        var done = desk.Run(Target.Vfio, Gpu, _unbind).ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());
        done.Warnings.ShouldBe([$"{Gpu}: let the driver turn new users away (drain): another program had set it; it is left set, and ends with the unbind or by: nvidia-smi drain -p {Gpu} -m 0"]);
        Asked(desk).ShouldBe(1);
    }

    [Fact]
    public void A_run_that_is_rolled_back_leaves_the_card_closed()
    {
        var desk = Drained();
        var before = desk.Picture();
        desk.Kernel.Faults.Refuse(call => call.Contains("nvidia/unbind"), Errno.InputOutput);
        desk.Run(Target.Vfio, Gpu, _unbind).ShouldBeOfType<Outcome.RolledBack>(desk.Memo.ToString());
        desk.Picture().ShouldBe(before);
        before.ShouldContain($"draining {Gpu}");
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("-m 0"));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_run_that_is_killed_and_taken_back_leaves_it_closed_where_others_closed_it_and_opens_what_it_closed_itself(bool byOthers)
    {
        var desk = Drained(byOthers);
        var before = desk.Picture();
        Mortal.DiesBefore(desk, call => call.Contains("nvidia/unbind"), mortal =>
            desk.Turn(666, mortal).HandOver(Target.Vfio, Gpu, _unbind, CancellationToken.None)).ShouldBeTrue();
        desk.Kernel.Describe().ShouldContain($"draining {Gpu}");

        desk.Turn().Recover(_unbind, wait: true, CancellationToken.None).ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());

        desk.Picture().ShouldBe(before);
    }

    // Taking back got stuck, and the way back to the host is planned again.
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void So_does_the_way_back_to_the_host_after_a_way_back_that_failed(bool byOthers)
    {
        var desk = Drained(byOthers);
        Mortal.DiesBefore(desk, call => call.Contains("nvidia/unbind"), mortal =>
            desk.Turn(666, mortal).HandOver(Target.Vfio, Gpu, _unbind, CancellationToken.None)).ShouldBeTrue();
        // The first undo of each kind fails, the drain's own included.
        desk.Kernel.Faults.Refuse(call => call.Contains("-m 0"), Errno.InputOutput, once: true);
        desk.Kernel.Faults.Refuse(call => call.Contains("snd_hda_intel/bind"), Errno.NoDevice, once: true);

        desk.Turn().Recover(_unbind, wait: true, CancellationToken.None).ShouldHaveSingleItem();

        desk.Kernel.Describe().Contains($"draining {Gpu}").ShouldBe(byOthers, desk.Memo.ToString());
        desk.Kernel.Calls.Any(call => call.Contains("-m 0")).ShouldBe(!byOthers);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_drain_of_our_own_and_a_card_that_cannot_be_drained_are_asked_about_by_nobody(bool drains)
    {
        var desk = Drained(byOthers: false);
        desk.Kernel.InstallNvidiaSmi(drains);
        desk.Run(Target.Vfio, Gpu, _unbind).ShouldBeOfType<Outcome.Done>(desk.Memo.ToString()).Warnings.ShouldBeEmpty();
        Asked(desk).ShouldBe(0);
    }
}
