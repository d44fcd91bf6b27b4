using GpuHandoff.Goals;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>
/// kill -9 before and after every write to the machine and every line of the journal, of every plan of every host: what
/// follows, whatever it is, brings the GPU to one of the two ends.
/// </summary>
public class CrashSweep
{
    public static TheoryData<string, Target, FreeBy> Cases() => FaultSweep.Cases();

    [Theory]
    [MemberData(nameof(Cases))]
    public void Recover_ends_every_crash_handed_over_completely_or_on_the_host(string host, Target target, FreeBy way) =>
        EveryCrash(host, target, way, (desk, home, told) =>
        {
            foreach (var ending in desk.Recover())
                ending.ShouldBeOfType<Ending.Ran>(told).Outcome.ShouldBeOfType<Outcome.Done>(told);

            desk.Ledger.Unfinished().ShouldBeEmpty(told);
            if (desk.Picture() != home)
                desk.Planned(Target.Vfio, FaultSweep.Gpu(desk), FaultSweep.Of(way)).IsEmpty().ShouldBeTrue($"neither home nor handed over\n{told}");
            desk.Recover().ShouldBeEmpty(told);
        });

    [Theory]
    [MemberData(nameof(Cases))]
    public void The_next_run_in_either_direction_finishes_what_a_crash_began(string host, Target target, FreeBy way)
    {
        foreach (var next in new[] { Target.Vfio, Target.Host })
        {
            EveryCrash(host, target, way, (desk, home, told) =>
            {
                var policy = FaultSweep.Of(way);
                if (host == "no-nvidia-module" && next == Target.Host)
                {
                    // There is no driver to hand it back to: at home it had none either.
                    desk.HandOver(next, FaultSweep.Gpu(desk), policy).ShouldBeOfType<Ending.Refused>(told);
                    return;
                }
                desk.HandOver(next, FaultSweep.Gpu(desk), policy).ShouldBeOfType<Ending.Ran>(told).Outcome.ShouldBeOfType<Outcome.Done>(told);
                desk.Planned(next, FaultSweep.Gpu(desk), policy).IsEmpty().ShouldBeTrue(told);
                desk.Ledger.Unfinished().ShouldBeEmpty(told);
                // Killed before it wrote anything down, a card that was on vfio-pci by hand counts as one to hand back.
                if (next == Target.Host && host != "already-on-vfio")
                    desk.Picture().ShouldBe(home, told);
            });
        }
    }

    [Theory]
    [InlineData("single-gpu", FreeBy.Unload)]
    [InlineData("two-identical-gpus", FreeBy.Unbind)]
    [InlineData("four-functions", FreeBy.Unbind)]
    public void A_recovery_that_is_killed_itself_is_ended_by_the_next_one(string host, FreeBy way)
    {
        foreach (var target in new[] { Target.Vfio, Target.Host })
        {
            for (var life = 0; ; life += 3)
            {
                var (probe, _) = Start(host, target, way);
                if (!Mortal.Dies(probe, life, mortal => Run(probe, mortal, target, way)))
                    break;
                for (var second = 0; ; second++)
                {
                    var (desk, home) = Start(host, target, way);
                    Mortal.Dies(desk, life, mortal => Run(desk, mortal, target, way));
                    var died = Mortal.Dies(desk, second, mortal => desk.Turn(666, mortal).Recover(Policy.Default, wait: true, CancellationToken.None));
                    desk.Recover();
                    var told = $"{host} {target} {way}, killed after {life} and the recovery after {second}\n{desk.Memo}";
                    desk.Ledger.Unfinished().ShouldBeEmpty(told);
                    if (desk.Picture() != home)
                        desk.Planned(Target.Vfio, FaultSweep.Gpu(desk), FaultSweep.Of(way)).IsEmpty().ShouldBeTrue(told);
                    if (!died)
                        break;
                }
            }
        }
    }

    [Theory]
    [InlineData("nvidia-console", FreeBy.Unload)]
    [InlineData("nvidia-console-580", FreeBy.Unbind)]
    [InlineData("single-gpu", FreeBy.Unload)]
    [InlineData("two-identical-gpus", FreeBy.Unbind)]
    [InlineData("four-functions", FreeBy.Unbind)]
    public void A_call_that_is_on_its_way_when_its_run_is_killed_is_made_before_another_run_looks_or_never(string host, FreeBy way)
    {
        foreach (var target in new[] { Target.Vfio, Target.Host })
        {
            foreach (var isTaken in new[] { true, false })
            {
                for (var call = 1; ; call++)
                {
                    var (desk, home) = Start(host, target, way);
                    if (!Mortal.DiesInFlight(desk, desk.Kernel.Calls.Count + call, isTaken, TimeSpan.FromSeconds(4), mortal => Run(desk, mortal, target, way)))
                    {
                        call.ShouldBeGreaterThan(5, "a sweep of nothing shows nothing");
                        break;
                    }
                    var told = $"{host} {target} {way}, killed with call {call} on its way ({(isTaken ? "taken" : "not taken")}): {desk.Kernel.Calls[^1]}";
                    var killed = desk.Kernel.Uptime;
                    foreach (var ending in desk.Recover())
                        ending.ShouldBeOfType<Ending.Ran>($"{told}\n{desk.Memo}").Outcome.ShouldBeOfType<Outcome.Done>($"{told}\n{desk.Memo}");
                    (desk.Kernel.Uptime - killed).ShouldBeGreaterThan(TimeSpan.FromSeconds(3), $"the helper was not waited for\n{told}");
                    desk.Ledger.Unfinished().ShouldBeEmpty(told);
                    if (desk.Picture() != home)
                        desk.Planned(Target.Vfio, FaultSweep.Gpu(desk), FaultSweep.Of(way)).IsEmpty().ShouldBeTrue($"neither home nor handed over\n{told}\n{desk.Memo}");
                    desk.Kernel.Pause(TimeSpan.FromMinutes(1));
                    if (desk.Picture() != home)
                        desk.Planned(Target.Vfio, FaultSweep.Gpu(desk), FaultSweep.Of(way)).IsEmpty().ShouldBeTrue($"something was made afterwards\n{told}");
                    desk.Kernel.Hazards.ShouldBeEmpty(told);
                }
            }
        }
    }

    [Fact]
    public void A_module_that_the_killed_run_has_on_its_way_is_waited_for() =>
        EveryCrash("single-gpu", Target.Vfio, FreeBy.Unload, (desk, home, told) =>
        {
            desk.Kernel.Dawdle("nvidia", TimeSpan.FromSeconds(5));
            foreach (var ending in desk.Recover())
                ending.ShouldBeOfType<Ending.Ran>(told).Outcome.ShouldBeOfType<Outcome.Done>(told);
            desk.Ledger.Unfinished().ShouldBeEmpty(told);
        });

    static void EveryCrash(string host, Target target, FreeBy way, Action<Desk, string, string> then)
    {
        for (var life = 0; ; life++)
        {
            var (desk, home) = Start(host, target, way);
            var died = Mortal.Dies(desk, life, mortal => Run(desk, mortal, target, way));
            if (!died)
            {
                life.ShouldBeGreaterThan(3, "a sweep of nothing shows nothing");
                return;
            }
            then(desk, home, $"{host} {target} {way}, killed after {life} changes: {string.Join(" | ", desk.Kernel.Calls.TakeLast(2))}\n{desk.Memo}");
            desk.Kernel.Hazards.ShouldBeEmpty();
            desk.Locks.IsFree().ShouldBeTrue();
        }
    }

    static void Run(Desk desk, Mortal mortal, Target target, FreeBy way) =>
        desk.Turn(666, mortal).HandOver(target, FaultSweep.Gpu(desk), FaultSweep.Of(way), CancellationToken.None);

    static (Desk Desk, string Home) Start(string host, Target target, FreeBy way)
    {
        var home = new Desk(Hosts.All.First(h => h.Name == host).Boot()).Picture();
        return (FaultSweep.Start(host, target, way).ShouldNotBeNull(), home);
    }
}
