using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>Every plan of every host, with every write failing once in every way: the GPU ends where it was or where it should be.</summary>
public class FaultSweep
{
    static readonly ConcurrentDictionary<(string, Target, FreeBy), IReadOnlyList<string>> _calls = new();

    /// <summary>Each host, target and way whose plan is not refused and not empty.</summary>
    public static TheoryData<string, Target, FreeBy> Cases()
    {
        var cases = new TheoryData<string, Target, FreeBy>();
        foreach (var (name, _) in Hosts.All)
        {
            foreach (var target in new[] { Target.Vfio, Target.Host })
            {
                foreach (var way in new[] { FreeBy.Unload, FreeBy.Unbind })
                {
                    if (Start(name, target, way) is { } start && start.Plan(target, Gpu(start), Of(way)) is Answer.Planned { Plan: var plan }
                        && !plan.IsEmpty())
                    {
                        cases.Add(name, target, way);
                    }
                }
            }
        }
        return cases;
    }

    [Fact]
    public void The_sweep_reaches_both_directions_and_both_ways_of_most_hosts()
    {
        Cases().Count.ShouldBeGreaterThan(40);
        foreach (var target in new[] { Target.Vfio, Target.Host })
        {
            foreach (var way in new[] { FreeBy.Unload, FreeBy.Unbind })
                Cases().Count(c => (Target)c[1] == target && (FreeBy)c[2] == way).ShouldBeGreaterThan(6);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_hand_over_without_a_fault_reaches_its_goal(string host, Target target, FreeBy way)
    {
        var desk = Started(host, target, way);
        desk.Done(target, Gpu(desk), Of(way));
        desk.Planned(target, Gpu(desk), Of(way)).IsEmpty().ShouldBeTrue("a second run must have nothing to do");
        desk.Kernel.Hazards.ShouldBeEmpty();
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_write_that_is_refused_once_leaves_all_as_before_or_all_done(string host, Target target, FreeBy way) => Evidence.Record(
        "any one write of any plan is refused", "undid what it had begun, newest first (exit 3), or went on where the end was reached all the same",
        "the step, the kernel's word for it, and that the machine is as before",
        Sweep(host, target, way, (faults, call) => faults.Refuse(call, Errno.InputOutput)));

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_write_that_is_ignored_once_leaves_all_as_before_or_all_done(string host, Target target, FreeBy way) => Evidence.Record(
        "any one write of any plan does nothing and reports success", "read back, did not believe it, and undid all (exit 3)",
        "the step, and that it reads back otherwise",
        Sweep(host, target, way, (faults, call) => faults.Ignore(call)));

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_write_that_works_and_reports_an_error_leaves_all_as_before_or_all_done(string host, Target target, FreeBy way) => Evidence.Record(
        "any one write of any plan works and reports an error", "undid all, that write too (exit 3), or was done",
        "the step and the kernel's word for it",
        Sweep(host, target, way, (faults, call) => faults.RefuseAfterwards(call, Errno.InputOutput)));

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_write_that_never_returns_ends_the_run_with_nothing_written_after_it(string host, Target target, FreeBy way)
    {
        for (var call = 1; call <= Length(host, target, way); call++)
        {
            var desk = Started(host, target, way);
            var before = desk.Kernel.Calls.Count;
            // Nodes are made and removed by plain calls that cannot block: they have no budget to exceed.
            // A program is another kind of silence: see below.
            if (CallAt(host, target, way, call) is var text && (text.StartsWith("mknod", StringComparison.Ordinal) || text.StartsWith("unlink", StringComparison.Ordinal) || IsProgram(text)))
                continue;
            desk.Kernel.Faults.Silent(before + call);

            var outcome = desk.Run(target, Gpu(desk), Of(way));

            var stuck = outcome.ShouldBeOfType<Outcome.Stuck>($"call {call}: {text}\n{desk.Memo}");
            stuck.Silent.ShouldBeTrue();
            desk.Kernel.Calls.Count.ShouldBe(before + call, $"nothing may be written after a silent call\n{desk.Memo}");
            ExitCode.Of(outcome).ShouldBe(4);

            // For the rest of this boot nobody touches that card.
            foreach (var next in new[] { target, target == Target.Vfio ? Target.Host : Target.Vfio })
            {
                var refused = desk.HandOver(next, Gpu(desk), Of(way)).ShouldBeOfType<Ending.Refused>(desk.Memo.ToString()).Why;
                refused.Findings.ShouldHaveSingleItem().Code.ShouldBe("gpu-is-wedged");
            }
            desk.Recover().ShouldHaveSingleItem().ShouldBeOfType<Ending.Refused>();
            desk.Kernel.Calls.Count.ShouldBe(before + call, $"a wedged card is left alone\n{desk.Memo}");
            Add("stuck");
        }
        Evidence.Record(
            "any one write of any plan never returns", "wrote nothing more, marked the card (exit 4); every later run refused at once",
            "the call, since when, what was not undone, and that a reboot is needed", Swept());
    }

    static bool IsProgram(string call) => call.StartsWith('/');

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_program_that_never_ends_marks_no_gpu_and_the_next_run_goes_on(string host, Target target, FreeBy way)
    {
        for (var call = 1; call <= Length(host, target, way); call++)
        {
            if (CallAt(host, target, way, call) is var text && !IsProgram(text))
                continue;
            var desk = Started(host, target, way);
            desk.Kernel.Faults.Silent(desk.Kernel.Calls.Count + call);

            var outcome = desk.Run(target, Gpu(desk), Of(way));

            var told = $"call {call}: {text}\n{desk.Memo}";
            (outcome is Outcome.Stuck { Silent: true }).ShouldBeFalse(told);
            desk.Ledger.Wedges().ShouldBeEmpty(told);
            desk.Kernel.Hazards.ShouldBeEmpty(told);
            desk.HandOver(target, Gpu(desk), Of(way)).ShouldBeOfType<Ending.Ran>(told).Outcome.ShouldBeOfType<Outcome.Done>(told);
            Add(outcome switch { Outcome.Done => "done", Outcome.RolledBack => "rolled back", _ => "partly rolled back" });
        }
        Evidence.Record(
            "any one program of any plan hangs, and SIGKILL does not end it", "undid what needs no such program (exit 3 or 4), or ended with a warning where the GPU was there already (exit 0); marked no GPU",
            "the program, its PID, and that it is no call that holds the GPU", Swept());
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_run_that_is_interrupted_before_any_step_is_rolled_back(string host, Target target, FreeBy way)
    {
        for (var call = 1; call <= Length(host, target, way); call++)
        {
            var desk = Started(host, target, way);
            var (before, homes) = (desk.Picture(), desk.Ledger.Homes().Length);
            using var stop = new CancellationTokenSource();
            desk.Kernel.Faults.Before(desk.Kernel.Calls.Count + call, _ => stop.Cancel());

            var outcome = desk.Run(target, Gpu(desk), Of(way), stop.Token);

            if (outcome is Outcome.Done)
                continue;
            outcome.ShouldBeOfType<Outcome.RolledBack>(desk.Memo.ToString());
            desk.Picture().ShouldBe(before, desk.Memo.ToString());
            desk.Ledger.Homes().Length.ShouldBe(homes);
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void Nothing_that_happens_behind_the_last_step_that_moves_a_gpu_moves_it_again(string host, Target target, FreeBy way)
    {
        var quiet = Started(host, target, way);
        quiet.Done(target, Gpu(quiet), Of(way));
        foreach (var what in new[] { "signal", "limit", "silence" })
        {
            for (var call = 1; call <= Length(host, target, way); call++)
            {
                var desk = Started(host, target, way);
                var plan = desk.Planned(target, Gpu(desk), Of(way));
                var last = plan.Steps().ToList().FindLastIndex(s => !s.MayFail());
                using var stop = new CancellationTokenSource();
                IDisposable? hung = null;
                var arrived = false;
                desk.Kernel.Faults.Before(desk.Kernel.Calls.Count + call, kernel =>
                {
                    // The diary tells: a step behind the last firm one has begun.
                    arrived = Enumerable.Range(last + 1, plan.Steps().Count() - last - 1)
                        .Any(step => desk.Ledger.Diaries.Values.Any(diary => diary.Contains($"{{\"begins\":{step}}}\n")));
                    if (!arrived)
                        return;
                    if (what == "signal")
                        stop.Cancel();
                    else if (what == "limit")
                        kernel.Pause(TimeSpan.FromSeconds(600));
                    else
                        hung = kernel.HangPrograms();
                });

                var outcome = desk.Run(plan, Of(way), stop.Token);

                if (!arrived)
                    continue;
                var told = $"{what} at call {call}: {CallAt(host, target, way, call)}\n{desk.Memo}";
                outcome.ShouldBeOfType<Outcome.Done>(told);
                desk.Kernel.Hazards.ShouldBeEmpty(told);
                hung?.Dispose();
                var rest = desk.Planned(target, Gpu(desk), Of(way));
                rest.Steps().ShouldAllBe(step => step.MayFail());
                if (target == Target.Host)
                {
                    desk.Run(rest).ShouldBeOfType<Outcome.Done>(told);
                    desk.Picture().ShouldBe(quiet.Picture(), told);
                    desk.Planned(target, Gpu(desk), Of(way)).IsEmpty().ShouldBeTrue(told);
                    desk.Ledger.Homes().Length.ShouldBe(quiet.Ledger.Homes().Length, told);
                }
                Add($"{what}: done");
            }
        }
        Evidence.Record(
            "a signal, the end of the time or a program that hangs, behind the last step that moves the GPU", "left the GPU where it shall be, ended the rest with warnings (exit 0), and the next run started what was left",
            "each service that was not started, why, and the command that starts it", Swept());
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_visitor_that_opens_the_card_before_any_write_never_makes_us_wait_for_ever(string host, Target target, FreeBy way)
    {
        for (var call = 1; call <= Length(host, target, way); call++)
        {
            var desk = Started(host, target, way);
            var visited = false;
            desk.Kernel.Faults.Before(desk.Kernel.Calls.Count + call, kernel =>
            {
                var visitor = kernel.StartProcess("nvidia-smi");
                foreach (var node in new[] { "/dev/nvidia0", "/dev/nvidiactl" })
                {
                    try
                    {
                        kernel.OpenNode(node, visitor);
                        visited = true;
                    }
                    catch (KernelRefused)
                    {
                        // No such card at this moment, or no node: then there is nothing to visit.
                    }
                }
            });

            var outcome = desk.Run(target, Gpu(desk), Of(way));

            if (visited)
                (outcome is Outcome.Stuck { Silent: true }).ShouldBeFalse($"{CallAt(host, target, way, call)}\n{desk.Memo}");
        }
    }

    /// <summary>What the ledger holds, as text.</summary>
    static string Records(Desk desk) => string.Join('\n', desk.Ledger.Homes().Select(
        h => $"{h.Gpu}: {string.Join(", ", h.Functions)}; {string.Join(", ", h.Modules.Select(m => m.Name))}; {string.Join(", ", h.Nodes)}"));

    /// <summary>What the theories have added up so far, by test and outcome.</summary>
    static readonly Dictionary<(string Test, string Outcome), int> _swept = [];

    static void Add(string outcome, [CallerMemberName] string test = "") => _swept[(test, outcome)] = _swept.GetValueOrDefault((test, outcome)) + 1;

    static string Swept([CallerMemberName] string test = "") =>
        string.Join(", ", _swept.Where(s => s.Key.Test == test).OrderBy(s => s.Key.Outcome, StringComparer.Ordinal).Select(s => $"{s.Value} {s.Key.Outcome}"));

    static string Sweep(string host, Target target, FreeBy way, Action<Faults, int> arm, [CallerMemberName] string test = "")
    {
        var length = Length(host, target, way);
        length.ShouldBeGreaterThan(0);
        for (var call = 1; call <= length; call++)
        {
            var desk = Started(host, target, way);
            var (before, homes) = (desk.Picture(), Records(desk));
            arm(desk.Kernel.Faults, desk.Kernel.Calls.Count + call);

            var outcome = desk.Run(target, Gpu(desk), Of(way));

            var told = $"{host} {target} {way}, call {call}: {CallAt(host, target, way, call)}\n{desk.Memo}";
            desk.Kernel.Hazards.ShouldBeEmpty(told);
            switch (outcome)
            {
                case Outcome.Done:
                    Add("done", test);
                    desk.Planned(target, Gpu(desk), Of(way)).IsEmpty().ShouldBeTrue($"done is done\n{told}");
                    break;
                case Outcome.RolledBack:
                    Add("rolled back", test);
                    desk.Picture().ShouldBe(before, told);
                    Records(desk).ShouldBe(homes, told);
                    break;
                default:
                    outcome.ShouldBeOfType<Outcome.RolledBack>(told);
                    break;
            }
        }
        return Swept(test);
    }

    static int Length(string host, Target target, FreeBy way) => Calls(host, target, way).Count;

    static string CallAt(string host, Target target, FreeBy way, int call) => Calls(host, target, way)[call - 1];

    /// <summary>The calls of an undisturbed run.</summary>
    static IReadOnlyList<string> Calls(string host, Target target, FreeBy way) => _calls.GetOrAdd((host, target, way), _ =>
    {
        var desk = Started(host, target, way);
        var before = desk.Kernel.Calls.Count;
        desk.Done(target, Gpu(desk), Of(way));
        return [.. desk.Kernel.Calls.Skip(before)];
    });

    static Desk Started(string host, Target target, FreeBy way) => Start(host, target, way).ShouldNotBeNull();

    /// <summary>The host at the beginning of a hand-over: at home, or with the GPU lent; null where it cannot be lent.</summary>
    internal static Desk? Start(string host, Target target, FreeBy way)
    {
        var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
        if (target == Target.Vfio)
            return desk;
        if (desk.Plan(Target.Vfio, Gpu(desk), Of(way)) is not Answer.Planned { Plan: var plan })
            return null;
        return desk.Run(plan) is Outcome.Done ? desk : null;
    }

    internal static string? Gpu(Desk desk) => desk.Survey().Gpus switch
    {
        // AMD's card, or the first of several.
        [var first, ..] gpus when !gpus.Any(g => g.IsNvidia()) => first.Address.ToString(),
        var gpus => gpus.First(g => g.IsNvidia()).Address.ToString(),
    };

    internal static Policy Of(FreeBy way) => Policy.Default with
    {
        By = way,
        LoseConsole = true,
        Users = UsersPolicy.Default.Everybody() with { DisplayManager = Treatment.Restart },
    };
}
