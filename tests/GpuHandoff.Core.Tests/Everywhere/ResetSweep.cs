using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Simulation.Sysfs;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>The whole ladder allowed and needed, with every write of it failing once in every way: no function is ever lost.</summary>
public class ResetSweep
{
    const string Gpu = "0000:01:00.0";

    public static TheoryData<string, Target, string, FreeBy> Cases()
    {
        var cases = new TheoryData<string, Target, string, FreeBy>();
        foreach (var host in new[] { "single-gpu", "four-functions", "resizable-bar", "two-identical-gpus-580" })
        {
            foreach (var way in new[] { FreeBy.Unload, FreeBy.Unbind })
            {
                if (way == FreeBy.Unload && host.StartsWith("two", StringComparison.Ordinal))
                    continue;
                foreach (var helps in new[] { "flr", "subordinate", "rescan", "nothing" })
                    cases.Add(host, Target.Host, helps, way);
                // What is asked for on the way out.
                cases.Add(host, Target.Vfio, "flr", way);
            }
        }
        return cases;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_write_that_is_refused_once_loses_nothing(string host, Target target, string helps, FreeBy way) =>
        Sweep(host, target, helps, way, (faults, call) => faults.Refuse(call, Errno.InputOutput));

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_write_that_is_ignored_once_loses_nothing(string host, Target target, string helps, FreeBy way) =>
        Sweep(host, target, helps, way, (faults, call) => faults.Ignore(call));

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_write_that_works_and_reports_an_error_loses_nothing(string host, Target target, string helps, FreeBy way) =>
        Sweep(host, target, helps, way, (faults, call) => faults.RefuseAfterwards(call, Errno.InputOutput));

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_write_that_never_returns_ends_the_run_with_nothing_written_after_it(string host, Target target, string helps, FreeBy way)
    {
        var calls = Whole(host, target, helps, way);
        for (var call = 1; call <= calls.Count; call++)
        {
            if (calls[call - 1].StartsWith("mknod", StringComparison.Ordinal) || calls[call - 1].StartsWith("unlink", StringComparison.Ordinal))
                continue;
            var desk = Started(host, target, helps, way);
            var before = desk.Kernel.Calls.Count;
            desk.Kernel.Faults.Silent(before + call);
            desk.Run(target, "0", Of(target, way)).ShouldBeOfType<Outcome.Stuck>(calls[call - 1]).Silent.ShouldBeTrue();
            desk.Kernel.Calls.Count.ShouldBe(before + call, desk.Memo.ToString());
        }
    }

    static void Sweep(string host, Target target, string helps, FreeBy way, Action<Faults, int> arm)
    {
        var calls = Whole(host, target, helps, way);
        for (var call = 1; call <= calls.Count; call++)
        {
            var desk = Started(host, target, helps, way);
            var (before, functions) = (desk.Picture(), desk.Survey().Functions().Count());
            arm(desk.Kernel.Faults, desk.Kernel.Calls.Count + call);

            var outcome = desk.Run(target, "0", Of(target, way));

            var told = $"{host} {target} {helps} {way}, call {call}: {calls[call - 1]}\n{string.Join('\n', desk.Kernel.Calls.Skip(desk.Kernel.Calls.Count - 40))}\n{desk.Memo}";
            desk.Kernel.Hazards.ShouldBeEmpty(told);
            switch (outcome)
            {
                case Outcome.Done:
                    desk.Planned(target, "0", Of(target, way)).IsEmpty().ShouldBeTrue($"done is done\n{told}");
                    break;
                // Nothing helped, and then the undo itself was disturbed: that is two faults, and a person is asked.
                case Outcome.Stuck { Silent: false, Failures: [_, _, ..] } when helps == "nothing":
                    desk.Survey().Functions().Count().ShouldBe(functions, told);
                    break;
                default:
                    outcome.ShouldBeOfType<Outcome.RolledBack>(told);
                    desk.Picture().ShouldBe(before, told);
                    break;
            }
        }
    }

    /// <summary>All writes of a run without a fault.</summary>
    static List<string> Whole(string host, Target target, string helps, FreeBy way)
    {
        var desk = Started(host, target, helps, way);
        var before = desk.Kernel.Calls.Count;
        var outcome = desk.Run(target, "0", Of(target, way));
        if (helps == "nothing")
            outcome.ShouldBeOfType<Outcome.RolledBack>(desk.Memo.ToString());
        else
            outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());
        return [.. desk.Kernel.Calls.Skip(before)];
    }

    static Desk Started(string host, Target target, string helps, FreeBy way)
    {
        var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
        if (target == Target.Vfio)
            return desk;
        desk.Done(Target.Vfio, "0", Policy.Default with { By = way });
        desk.Kernel.FailProbeUntil(helps, "nvidia", At(Gpu), Errno.NotPermitted);
        return desk;
    }

    static Policy Of(Target target, FreeBy way) => Policy.Default with
    {
        By = way,
        Resets = [Rung.Function, Rung.Bus, Rung.Rescan],
        ResetFirst = target == Target.Vfio,
    };
}
