using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>A unit is stopped as a whole for its own work only; what it runs for others is a process.</summary>
public class WhoseWork
{
    static readonly UsersPolicy _default = UsersPolicy.Default;

    static Policy With(UsersPolicy users) => Policy.Default with { Users = users };

    /// <summary>A unit that runs without the card, and a process below it that has it.</summary>
    static (Desk Desk, SimulatedUnit Unit, SimulatedProcess Process) Below(string unit, uint main, uint? user)
    {
        var kernel = Hosts.SingleGpu();
        var above = kernel.AddUnit(unit, "main");
        above.User = main;
        kernel.StartUnit(above);
        return (new(kernel), above, kernel.StartBelow(above, "work", user, "/dev/nvidia0", "/dev/nvidiactl"));
    }

    static Step[] Stops(Desk desk, UsersPolicy users) =>
        [.. desk.Planned(Target.Vfio, policy: With(users)).Steps().Where(s => s is StopUnit or StopProcess or StopContainer or StopMps)];

    [Theory]
    [InlineData("atd.service", 1000u)]
    [InlineData("anacron.service", 0u)]
    [InlineData("anacron.service", 1000u)]
    [InlineData("cron.service", 0u)]
    [InlineData("cron.service", 1000u)]
    [InlineData("slurmd.service", 1000u)]
    [InlineData("k3s.service", 0u)]
    [InlineData("incus.service", 0u)]
    [InlineData("incus.service", 65534u)]
    [InlineData("NetworkManager.service", 0u)]
    [InlineData("docker.service", 0u)]
    [InlineData("dbus.service", 0u)]
    [InlineData("backup-run.service", 1000u)]
    public void A_job_below_a_unit_that_runs_them_is_a_process_and_the_unit_stays_up(string name, uint user)
    {
        var (desk, unit, job) = Below(name, main: 0, user);

        desk.Refused(Target.Vfio, policy: With(_default with { Units = Treatment.Restart })).Findings.ShouldHaveSingleItem()
            .Hint.ShouldContain("users: {processes: stop}");
        Stops(desk, _default.Everybody()).ShouldBe([new StopProcess(job.Pid, job.Started, "work")]);
        desk.Done(Target.Vfio, policy: With(_default.Everybody()));

        unit.State.ShouldBe("active");
        desk.Kernel.RunningProcesses.ShouldContain(unit.Process!);
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("systemctl"));
    }

    [Theory]
    [InlineData("ollama.service")]
    [InlineData("jellyfin.service")]
    public void A_units_own_work_in_another_process_stops_the_unit_as_a_whole_and_it_comes_back(string name)
    {
        var (desk, unit, work) = Below(name, main: 997, user: 997);
        var main = unit.Process;

        Stops(desk, _default with { Units = Treatment.Restart }).ShouldBe([new StopUnit(name)]);
        desk.Done(Target.Vfio, policy: With(_default with { Units = Treatment.Restart }));

        desk.Kernel.RunningProcesses.ShouldNotContain(main);
        desk.Kernel.RunningProcesses.ShouldNotContain(work);
        desk.Done(Target.Host);
        unit.State.ShouldBe("active");
    }

    [Fact]
    public void What_only_a_socket_starts_does_its_own_work_for_its_clients()
    {
        var (desk, unit, _) = Below("transcoder.service", main: 997, user: 997);
        unit.TriggeredBy = "transcoder.socket";
        Stops(desk, _default.Everybody()).ShouldBe([new StopUnit("transcoder.service")]);
    }

    [Theory]
    [InlineData("backup.timer", "simple")]
    [InlineData("backup.path", "simple")]
    [InlineData("", "oneshot")]
    public void What_a_timer_or_a_path_starts_or_what_ends_by_itself_runs_a_job_and_is_stopped_for_its_main_process_only(string trigger, string type)
    {
        var (desk, unit, job) = Below("backup.service", main: 0, user: null);
        (unit.TriggeredBy, unit.Type) = (trigger, type);
        Stops(desk, _default.Everybody()).ShouldBe([new StopProcess(job.Pid, job.Started, "work")]);

        desk.Kernel.EndProcess(job);
        desk.Kernel.OpenNode("/dev/nvidia0", unit.Process!);
        Stops(desk, _default.Everybody()).ShouldBe([new StopUnit("backup.service")]);
    }

    [Fact]
    public void Somebodys_job_in_a_unit_that_is_stopped_for_its_own_use_ends_with_it()
    {
        var (desk, unit, job) = Below("notebooks.service", main: 0, user: 1000);
        desk.Kernel.OpenNode("/dev/nvidia0", unit.Process!);
        Stops(desk, _default with { Units = Treatment.Restart }).ShouldBe([new StopUnit("notebooks.service")]);
        desk.Done(Target.Vfio, policy: With(_default with { Units = Treatment.Restart }));
        desk.Kernel.RunningProcesses.ShouldNotContain(job);
    }

    [Fact]
    public void A_job_that_outlives_its_units_stop_is_ended_besides_it()
    {
        var (desk, unit, job) = Below("slurmd.service", main: 0, user: 1000);
        desk.Kernel.OpenNode("/dev/nvidia0", unit.Process!);
        Stops(desk, _default.Everybody()).ShouldBe([new StopUnit("slurmd.service"), new StopProcess(job.Pid, job.Started, "work")]);
        desk.Refused(Target.Vfio, policy: With(_default with { Units = Treatment.Restart })).Findings.ShouldHaveSingleItem();
        desk.Done(Target.Vfio, policy: With(_default.Everybody()));
    }

    [Fact]
    public void By_its_name_in_the_policy_a_unit_is_stopped_for_whatever_it_runs_and_by_refuse_it_is_spared_with_that()
    {
        var (desk, _, job) = Below("notebooks.service", main: 0, user: 1000);
        Stops(desk, _default.Everybody()).ShouldBe([new StopProcess(job.Pid, job.Started, "work")]);
        Stops(desk, _default with { Unit = _default.Unit.Add("notebooks.service", Treatment.Restart) }).ShouldBe([new StopUnit("notebooks.service")]);
        desk.Refused(Target.Vfio, policy: With(_default.Everybody() with { Unit = _default.Unit.Add("notebooks.service", Treatment.Refuse) }))
            .Findings.ShouldHaveSingleItem();
    }

    [Theory]
    [InlineData("cron.service")]
    [InlineData("atd.service")]
    public void Not_even_its_name_in_the_policy_stops_a_unit_whose_stop_would_leave_the_job(string name)
    {
        var (desk, _, job) = Below(name, main: 0, user: 1000);
        Stops(desk, _default.Everybody() with { Unit = _default.Unit.Add(name, Treatment.Restart) }).ShouldBe([new StopProcess(job.Pid, job.Started, "work")]);
    }

    [Fact]
    public void A_unit_that_others_work_hangs_on_is_not_stopped_even_for_its_main_process()
    {
        var (desk, unit, job) = Below("cron.service", main: 0, user: 1000);
        desk.Kernel.EndProcess(job);
        desk.Kernel.OpenNode("/dev/nvidia0", unit.Process!);
        desk.Refused(Target.Vfio, policy: With(_default.Everybody())).Findings.ShouldHaveSingleItem().Hint.ShouldContain("others' work hangs on it");
    }

    [Fact]
    public void A_users_job_in_the_unit_that_we_run_in_hinders_nothing_and_roots_work_there_is_spared()
    {
        var (desk, unit, job) = Below("cron.service", main: 0, user: 1000);
        desk.Kernel.Ourselves = desk.Kernel.StartBelow(unit, "gpu-handoff", user: 0);
        Stops(desk, _default.Everybody()).ShouldBe([new StopProcess(job.Pid, job.Started, "work")]);
        desk.Kernel.StartBelow(unit, "nvidia-smi", user: 0, "/dev/nvidia0");
        desk.Refused(Target.Vfio, policy: With(_default.Everybody())).Findings.ShouldHaveSingleItem().Hint.ShouldContain("this very program runs in it");
    }

    [Fact]
    public void Where_systemd_does_not_answer_no_unit_is_stopped_on_a_guess_and_that_is_said()
    {
        var (desk, _, _) = Below("ollama.service", main: 997, user: 997);
        desk.Kernel.HangSystemctl();
        var finding = desk.Refused(Target.Vfio, policy: With(_default.Everybody())).Findings.ShouldHaveSingleItem();
        finding.Hint.ShouldContain("systemd does not tell whether it does ollama.service's own work");
        desk.Kernel.Asked.Count(call => call.Contains("MainPID")).ShouldBe(1);
    }

    [Fact]
    public void A_unit_that_systemd_does_not_know_is_no_reason_to_guess_either()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var process = desk.Kernel.StartProcess("work", "/system.slice/gone.service");
        desk.Kernel.OpenNode("/dev/nvidia0", process);
        // systemctl show of such a one says MainPID=0.
        Stops(desk, _default.Everybody()).ShouldBe([new StopProcess(process.Pid, process.Started, "work")]);
    }

    [Fact]
    public void Systemd_is_asked_once_for_all_units_and_not_at_all_where_it_is_no_question()
    {
        var desk = new Desk(Hosts.BusyServices());
        desk.Kernel.StartUnit(desk.Kernel.AddUnit("jellyfin.service", "jellyfin", "/dev/nvidia0"));
        desk.Planned(Target.Vfio, policy: With(_default.Everybody()));
        desk.Kernel.Asked.Where(call => call.Contains("MainPID")).ShouldHaveSingleItem().ShouldNotContain("persistenced");

        desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.StartUnit(desk.Kernel.AddPersistenced());
        desk.Kernel.OpenNode("/dev/nvidia0", desk.Kernel.StartProcess("python3"));
        desk.Planned(Target.Vfio, policy: With(_default.Everybody()));
        desk.Kernel.Asked.ShouldAllBe(call => !call.Contains("MainPID"));
    }

    [Theory]
    [InlineData(4211, 997u, "control-group", "simple", "", Share.Main)]
    [InlineData(4212, 997u, "control-group", "simple", "", Share.Work)]
    [InlineData(4212, 997u, "mixed", "notify", "x.socket", Share.Work)]
    [InlineData(4212, 0u, "control-group", "simple", "", Share.Job)]
    [InlineData(4212, null, "control-group", "simple", "", Share.Job)]
    [InlineData(4212, 997u, "process", "simple", "", Share.Job)]
    [InlineData(4212, 997u, "none", "simple", "", Share.Job)]
    [InlineData(4212, 997u, "control-group", "oneshot", "", Share.Job)]
    [InlineData(4212, 997u, "control-group", "simple", "x.timer", Share.Job)]
    [InlineData(4212, 997u, "control-group", "simple", "x.socket x.path", Share.Job)]
    public void Whose_work_a_process_does_is_told_by_kind(int pid, uint? user, string killMode, string type, string triggeredBy, Share share) =>
        new Service("x.service", 4211, 997, killMode, type, [.. triggeredBy.Split(' ', StringSplitOptions.RemoveEmptyEntries)])
            .ShareOf(pid, user).ShouldBe(share);

    [Fact]
    public void Without_a_main_process_nothing_is_the_units_work()
    {
        new Service("x.service", 0, null, "control-group", "forking", []).ShareOf(4212, null).ShouldBe(Share.Job);
        new Service("x.service", 4211, null, "control-group", "forking", []).ShareOf(4212, null).ShouldBe(Share.Job);
    }
}
