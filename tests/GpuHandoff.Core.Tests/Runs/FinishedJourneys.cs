using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;

namespace GpuHandoff.Core.Tests.Runs;

/// <summary>The GPU is where it shall be, and something behind that is slow, silent or interrupted: the GPU stays, and a later run does the rest.</summary>
public class FinishedJourneys
{
    static readonly Policy _everybody = Policy.Default with { Users = UsersPolicy.Default.Everybody() };

    [Fact]
    public void Four_services_that_take_100_s_each_keep_the_gpu_at_home_and_the_last_one_is_left_to_the_next_run()
    {
        var (desk, names) = Lent(4);
        foreach (var name in names)
            desk.Kernel.Unit(name).StartTakes = TimeSpan.FromSeconds(100);

        var done = desk.HandOver(Target.Host, policy: _everybody).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());

        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
        var left = done.Left.ShouldHaveSingleItem().ShouldBeOfType<StartUnit>().Unit;
        done.Warnings.ShouldHaveSingleItem().ShouldBe(
            $"start {left}: not done, what was stopped was not all started within 300 s; by hand: systemctl start {left}; the next to_nvidia does it, too");
        names.Count(name => desk.Kernel.Unit(name).State == "active").ShouldBe(3);

        desk.Planned(Target.Host, policy: _everybody).Steps().ShouldBe([new StartUnit(left)]);
        desk.Done(Target.Host, policy: _everybody);
        desk.Kernel.Unit(left).State.ShouldBe("active");
        desk.Planned(Target.Host, policy: _everybody).IsEmpty().ShouldBeTrue();
        desk.Ledger.Homes().ShouldBeEmpty();
    }

    [Fact]
    public void A_systemd_that_hangs_is_asked_once_and_all_nine_services_are_named_and_started_later()
    {
        var (desk, names) = Lent(9);
        var (hung, began) = (desk.Kernel.HangSystemctl(), desk.Kernel.Uptime);

        var done = desk.HandOver(Target.Host, policy: _everybody).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());

        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
        (desk.Kernel.Uptime - began).ShouldBeLessThan(TimeSpan.FromSeconds(60), "one silence costs 20 s, nine would be minutes");
        done.Warnings.Length.ShouldBe(9);
        names.ShouldAllBe(name => done.Warnings.Any(w => w.Contains(name) && w.Contains("systemctl did not answer before")));
        desk.Ledger.Wedges().ShouldBeEmpty();
        hung.Dispose();
        desk.Done(Target.Host, policy: _everybody);
        names.ShouldAllBe(name => desk.Kernel.Unit(name).State == "active");
    }

    [Fact]
    public void A_signal_while_services_start_ends_the_rest_and_not_the_journey()
    {
        var (desk, names) = Lent(4);
        using var stop = new CancellationTokenSource();
        desk.Kernel.Faults.Before(call => call.StartsWith("/usr/bin/systemctl start"), _ => stop.Cancel());

        var done = desk.HandOver(Target.Host, policy: _everybody, stop: stop.Token).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());

        ExitCode.Of(done).ShouldBe(0);
        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
        done.Left.Length.ShouldBe(3, "the step in hand ends");
        // The diary knows them, and has its end.
        var diary = desk.Ledger.Diaries.Values.Single();
        diary.Split('\n').Count(line => line.StartsWith("{\"left\":")).ShouldBe(3);
        diary.ShouldEndWith("{\"closes\":\"done\"}\n");
        desk.Ledger.Unfinished().ShouldBeEmpty();
        desk.Recover().ShouldBeEmpty();
        desk.Done(Target.Host, policy: _everybody);
        names.ShouldAllBe(name => desk.Kernel.Unit(name).State == "active");
    }

    [Theory]
    [InlineData("mknod")]
    [InlineData("d3cold_allowed")]
    public void A_signal_or_the_limit_behind_the_last_step_that_moves_the_gpu_takes_nothing_back(string call)
    {
        foreach (var isSignal in new[] { true, false })
        {
            var (desk, _) = Lent(1);
            var came = false;
            using var stop = new CancellationTokenSource();
            // Behind the last driver: the GPU and its siblings are on the host's.
            desk.Kernel.Faults.Before(c => c.Contains(call) && desk.DriverOf("0000:01:00.1") == "snd_hda_intel", kernel =>
            {
                came = true;
                if (isSignal)
                    stop.Cancel();
                else
                    kernel.Pause(TimeSpan.FromSeconds(400));
            });
            var done = desk.HandOver(Target.Host, policy: _everybody, stop: stop.Token).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());
            came.ShouldBeTrue();
            ExitCode.Of(done).ShouldBe(0);
            desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
            desk.Kernel.NodeAt(new("/dev/nvidia0")).ShouldNotBeNull();
        }
    }

    [Fact]
    public void A_run_whose_turn_comes_when_hardly_any_time_is_left_begins_nothing()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var plan = desk.Planned(Target.Vfio);
        var began = desk.Kernel.Uptime;
        desk.Kernel.Pause(TimeSpan.FromSeconds(295));
        var outcome = new Executor(desk.Kernel, desk.Ledger, desk.Memo, Limits.Default).Run(plan, CancellationToken.None, began);
        outcome.ShouldBeOfType<Outcome.RolledBack>().What.ShouldContain("5 s are too few to begin");
        desk.Kernel.Calls.ShouldBeEmpty();
    }

    [Fact]
    public void A_run_that_was_killed_while_it_wrote_down_what_it_left_is_unfinished()
    {
        var (desk, _) = Lent(2);
        using var hung = desk.Kernel.HangSystemctl();
        desk.HandOver(Target.Host, policy: _everybody);
        var diary = desk.Ledger.Diaries.Values.Single();
        var without = diary[..(diary.TrimEnd('\n').LastIndexOf('\n') + 1)];
        JournalText.Read(without, "x").ShouldNotBeNull().Plan.Target.ShouldBe(Target.Host);
        Should.Throw<JournalUnreadable>(() => JournalText.Read(without + JournalText.Left(99) + "\n", "x"));
    }

    [Fact]
    public void A_docker_that_hangs_on_the_way_home_marks_no_gpu()
    {
        var desk = new Desk(Hosts.DockerContainer());
        desk.Done(Target.Vfio, "0000:01:00.0", _everybody);
        var hung = desk.Kernel.HangProgram(Programs.Docker);
        var done = desk.HandOver(Target.Host, "0000:01:00.0", _everybody).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());
        done.Left.ShouldHaveSingleItem().ShouldBeOfType<StartContainer>();
        desk.Ledger.Wedges().ShouldBeEmpty();
        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
        hung.Dispose();
        desk.Done(Target.Host, "0000:01:00.0", _everybody);
        desk.Planned(Target.Host, "0000:01:00.0", _everybody).IsEmpty().ShouldBeTrue();
    }

    [Fact]
    public void What_was_left_is_still_remembered_after_a_hand_over_in_between()
    {
        var (desk, names) = Lent(3);
        var hung = desk.Kernel.HangSystemctl();
        desk.Done(Target.Host, policy: _everybody);
        hung.Dispose();
        // An administrator starts one of them by hand; the others stay down while a VM has the GPU.
        desk.Kernel.StartUnit(desk.Kernel.Unit(names[0]));
        desk.Done(Target.Vfio, policy: _everybody);
        desk.Done(Target.Host, policy: _everybody);
        names.ShouldAllBe(name => desk.Kernel.Unit(name).State == "active");
        desk.Ledger.Homes().ShouldBeEmpty();
    }

    [Fact]
    public void What_an_earlier_return_left_survives_a_hand_over_that_is_killed_and_taken_back()
    {
        var (desk, names) = Lent(2);
        var hung = desk.Kernel.HangSystemctl();
        desk.Done(Target.Host, policy: _everybody);
        hung.Dispose();
        Everywhere.Mortal.DiesBefore(desk, call => call.Contains("rmmod nvidia_drm"), mortal =>
            desk.Turn(666, mortal).HandOver(Target.Vfio, null, _everybody, CancellationToken.None)).ShouldBeTrue();
        desk.Recover().ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());
        desk.Planned(Target.Host, policy: _everybody).Steps().OfType<StartUnit>().Select(s => s.Unit).ShouldBe(names, ignoreOrder: true);
    }

    [Fact]
    public void A_service_whose_manager_says_no_is_a_warning_and_is_not_tried_for_ever()
    {
        var (desk, names) = Lent(2);
        desk.Kernel.Unit(names[0]).IsBroken = true;
        var done = desk.Run(Target.Host, policy: _everybody).ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());
        done.Warnings.ShouldHaveSingleItem().ShouldContain(names[0]);
        done.Left.ShouldBeEmpty();
        desk.Planned(Target.Host, policy: _everybody).IsEmpty().ShouldBeTrue();
        desk.Ledger.Homes().ShouldBeEmpty();
    }

    [Fact]
    public void A_manager_that_was_silent_on_the_way_out_is_not_asked_again_for_the_undo()
    {
        var desk = WithServices(6);
        IDisposable? hung = null;
        var began = desk.Kernel.Uptime;
        desk.Kernel.Faults.Before(call => call.StartsWith("/usr/bin/systemctl stop") && call.Contains("service3"), kernel => hung = kernel.HangSystemctl());

        var stuck = desk.Run(Target.Vfio, policy: _everybody).ShouldBeOfType<Outcome.Stuck>(desk.Memo.ToString());

        stuck.Silent.ShouldBeFalse();
        desk.Ledger.Wedges().ShouldBeEmpty();
        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
        stuck.NotUndone.ShouldNotBeEmpty();
        (desk.Kernel.Uptime - began).ShouldBeLessThan(TimeSpan.FromSeconds(60));
        hung!.Dispose();
        desk.Recover();
        desk.Kernel.Unit("service0.service").State.ShouldBe("active");
    }

    [Fact]
    public void The_limit_of_a_run_covers_what_it_has_waited_for()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var policy = _everybody with { Limits = Limits.Default with { Total = TimeSpan.FromSeconds(30) } };
        var other = new MemoryLocks(desk.Locks, "9001 gpu-handoff").Try("gpu-0000:01:00.0", shared: false).ShouldNotBeNull();
        desk.Kernel.Later(TimeSpan.FromSeconds(20), other.Dispose);
        desk.Kernel.Faults.Before(1, kernel => kernel.Pause(TimeSpan.FromSeconds(15)));
        var back = desk.HandOver(Target.Vfio, policy: policy).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.RolledBack>(desk.Memo.ToString());
        back.What.ShouldStartWith("not done within 30 s");
    }

    [Fact]
    public void The_machine_of_one_run_passes_every_call_on()
    {
        // A member with a body in IKernel would be answered there, and not by the machine.
        var type = typeof(Executor).Assembly.GetType("GpuHandoff.Runs.AskedOnce").ShouldNotBeNull();
        foreach (var method in type.GetInterfaceMap(typeof(IKernel)).TargetMethods)
            method.DeclaringType.ShouldBe(type, method.Name);
    }

    static Desk WithServices(int count)
    {
        var desk = new Desk(Hosts.SingleGpu());
        for (var i = 0; i < count; i++)
            desk.Kernel.StartUnit(desk.Kernel.AddUnit($"service{i}.service", $"service{i}", "/dev/nvidiactl", "/dev/nvidia0"));
        return desk;
    }

    /// <summary>A GPU that is on vfio-pci, and what was stopped for it.</summary>
    static (Desk Desk, string[] Names) Lent(int services)
    {
        var desk = WithServices(services);
        desk.Done(Target.Vfio, policy: _everybody);
        return (desk, [.. Enumerable.Range(0, services).Select(i => $"service{i}.service")]);
    }
}
