using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>Each kind of user is stopped in its own way, by its own word of the policy.</summary>
public class KnownUsers
{
    const string Persistenced = "nvidia-persistenced.service";
    const string Display = "display-manager.service";

    static Policy With(UsersPolicy users) => Policy.Default with { Users = users };

    static readonly UsersPolicy _default = UsersPolicy.Default;

    // ---- treatments ----

    [Fact]
    public void Unasked_nvidias_own_daemon_is_stopped_and_is_back_when_the_card_is()
    {
        var kernel = Hosts.SingleGpu();
        kernel.StartUnit(kernel.AddPersistenced());
        var desk = new Desk(kernel);
        var before = desk.Picture();
        desk.Done(Target.Vfio);
        kernel.Unit(Persistenced).State.ShouldBe("inactive");
        desk.Done(Target.Host);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void With_nvidia_refused_its_daemon_is_named_with_the_word_that_lets_it_be_stopped()
    {
        var kernel = Hosts.SingleGpu();
        kernel.StartUnit(kernel.AddPersistenced());
        var finding = new Desk(kernel).Refused(Target.Vfio, policy: With(_default with { Nvidia = Treatment.Refuse })).Findings.ShouldHaveSingleItem();
        finding.Evidence.ShouldContain(line => line.Contains(Persistenced));
        finding.Hint.ShouldContain("users: {nvidia: restart}");
    }

    [Theory]
    [InlineData("nvidia-powerd.service")]
    [InlineData("nvidia-fabricmanager.service")]
    [InlineData("nvidia-dcgm.service")]
    [InlineData("dcgm.service")]
    [InlineData("dcgm-exporter.service")]
    [InlineData("nvidia-dcgm-exporter.service")]
    [InlineData("prometheus-dcgm-exporter.service")]
    [InlineData("nvidia-mps.service")]
    public void Each_of_nvidias_daemons_steps_aside_unasked(string name)
    {
        var kernel = Hosts.SingleGpu();
        kernel.StartUnit(kernel.AddUnit(name, "daemon", "/dev/nvidiactl", "/dev/nvidia0"));
        var desk = new Desk(kernel);
        var before = desk.Picture();
        desk.Done(Target.Vfio);
        desk.Done(Target.Host);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_unit_that_is_to_be_stopped_stays_down_when_the_card_is_back_and_comes_back_with_a_rollback()
    {
        var stop = With(_default with { Unit = _default.Unit.Add("ollama.service", Treatment.Stop) });
        var desk = new Desk(Hosts.BusyServices());
        var before = desk.Picture();
        desk.Kernel.Faults.Refuse("rmmod nvidia".Equals, 16, once: true);
        desk.Run(Target.Vfio, policy: stop).ShouldBeOfType<Outcome.RolledBack>();
        desk.Picture().ShouldBe(before);

        desk.Done(Target.Vfio, policy: stop);
        desk.Done(Target.Host);

        desk.Kernel.Unit("ollama.service").State.ShouldBe("inactive");
        desk.Kernel.Unit(Persistenced).State.ShouldBe("active");
    }

    [Fact]
    public void One_units_own_word_counts_before_that_for_all()
    {
        var policy = With(_default.Everybody() with { Unit = _default.Unit.Add("ollama.service", Treatment.Refuse) });
        new Desk(Hosts.BusyServices()).Refused(Target.Vfio, policy: policy).Findings.ShouldHaveSingleItem()
            .Evidence.ShouldAllBe(line => line.Contains("ollama") || line.Contains("module"));
    }

    [Fact]
    public void Another_cards_policy_decides_for_that_card_alone()
    {
        var kernel = Hosts.TwoIdenticalGpus(new("580.126.20"));
        kernel.StartUnit(kernel.AddUnit("training.service", "python3", "/dev/nvidia0"));
        kernel.StartUnit(kernel.AddUnit("ollama.service", "ollama", "/dev/nvidia1"));
        var policy = Policy.Default with { Own = Policy.Default.Own.Add(new(0, 2, 0, 0), With(_default.Everybody())) };
        var desk = new Desk(kernel);
        desk.Refused(Target.Vfio, "01:00", policy).Findings.ShouldContain(f => f.Evidence.Any(line => line.Contains("training")));
        desk.Done(Target.Vfio, "02:00", policy);
        kernel.Unit("ollama.service").State.ShouldBe("inactive");
        kernel.Unit("training.service").State.ShouldBe("active");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_cluster_file_system_that_does_not_answer_is_named_and_hinders_no_hand_over_that_needs_no_config(bool dead)
    {
        var desk = new Desk(Silent(Hosts.LxcByConfig(), dead));
        var before = desk.Picture();
        var began = desk.Kernel.Uptime;

        var plan = desk.HandOver(Target.Vfio).ShouldBeOfType<Ending.Ran>().Plan;

        plan.Notes.ShouldHaveSingleItem().ShouldContain("container 201, container 202, container 203 is not known");
        plan.Notes[0].ShouldContain("pve-cluster");
        (desk.Kernel.Uptime - began).ShouldBeLessThan(TimeSpan.FromSeconds(10), "one that keeps silent is asked once");
        desk.HandOver(Target.Host).ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>();
        desk.Picture().ShouldBe(before);
        desk.Ledger.Wedges().ShouldBeEmpty();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Without_its_config_a_container_that_the_policy_would_act_on_is_a_refusal(bool dead)
    {
        var desk = new Desk(Silent(Hosts.LxcByConfig(), dead));
        foreach (var users in (UsersPolicy[])
            [_default with { Container = _default.Container.Add("201", Treatment.Restart) }, _default with { Container = _default.Container.Add("201", Treatment.Refuse) }])
        {
            var finding = desk.Refused(Target.Vfio, policy: With(users)).Findings.ShouldHaveSingleItem();
            finding.What.ShouldContain("whether container 201 was given");
            finding.Hint.ShouldContain("pve-cluster");
        }
        desk.Refused(Target.Vfio, policy: With(_default with { Containers = Treatment.Stop })).Findings.Length.ShouldBe(3);
    }

    [Fact]
    public void A_container_of_the_list_and_one_that_shows_its_use_are_stopped_by_name_without_any_config()
    {
        var desk = new Desk(Silent(Hosts.LxcByConfig(), dead: true));
        desk.Done(Target.Vfio, policy: With(_default with { Restarted = ["203"] }));
        desk.Kernel.Container("203").IsRunning.ShouldBeFalse();
        desk.Kernel.Container("201").IsRunning.ShouldBeTrue();

        desk = new Desk(Silent(Hosts.LxcContainers(), dead: true));
        desk.Done(Target.Vfio, policy: With(_default with { Container = _default.Container.Add("201", Treatment.Restart).Add("202", Treatment.Stop) }));
        desk.Kernel.Container("201").IsRunning.ShouldBeFalse();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_recovery_goes_without_configs(bool dead)
    {
        var desk = new Desk(Hosts.LxcByConfig());
        var before = desk.Picture();
        Everywhere.Mortal.DiesBefore(desk, "rmmod nvidia".Equals, desk.Running(Target.Vfio)).ShouldBeTrue();
        _ = Silent(desk.Kernel, dead);
        desk.Recover().ShouldHaveSingleItem().ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>();
        desk.Picture().ShouldBe(before);
    }

    static SimulatedKernel Silent(SimulatedKernel kernel, bool dead)
    {
        (kernel.ClusterHangs, kernel.ClusterIsDead) = (!dead, dead);
        return kernel;
    }

    [Theory]
    [InlineData("docker:0123456789ab", Treatment.Stop)]
    [InlineData("docker:0123456789abcdef0123", Treatment.Stop)]
    [InlineData("docker:0123", Treatment.Stop)]
    [InlineData("podman:0123456789ab", Treatment.Refuse)]
    [InlineData("docker:", Treatment.Refuse)]
    [InlineData("0123456789ab", Treatment.Refuse)]
    public void A_docker_container_is_meant_by_the_first_digits_of_its_number(string name, Treatment treatment) =>
        (_default with { Container = _default.Container.Add(name, Treatment.Stop) })
            .OfContainer(new(ContainerKind.Docker, "0123456789ab")).ShouldBe(treatment);

    [Fact]
    public void Who_stands_in_the_way_is_told_with_the_words_that_let_the_plan_stop_him()
    {
        var desk = new Desk(Hosts.LxcContainers());
        desk.Kernel.OpenNode("/dev/nvidia0", desk.Kernel.StartProcess("python3"));
        desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem().Hint
            .ShouldContain("""--stop-users, or with this in /etc/gpu-handoff.yaml: users: {container: {"201": restart}, container: {"202": restart}, processes: stop}""");
    }

    [Fact]
    public void A_container_whose_manager_is_not_installed_is_told_so()
    {
        var kernel = Hosts.SingleGpu();
        kernel.OpenNode("/dev/nvidia0", kernel.StartProcess("python3", $"/system.slice/docker-{new string('a', 64)}.scope"));
        new Desk(kernel).Refused(Target.Vfio, policy: With(_default.Everybody())).Findings.ShouldHaveSingleItem()
            .Hint.ShouldContain("/usr/bin/docker, which would stop and start it, is not installed");
    }

    [Theory]
    [InlineData("libpod-", "user alice's own Podman container")]
    [InlineData("docker-", "user alice's own Docker container")]
    public void What_runs_in_a_users_own_container_is_that_users_process_and_whose_it_is_is_told(string prefix, string whose)
    {
        var kernel = Hosts.SingleGpu();
        var id = new string('a', 64);
        // Root's own have the same number.
        foreach (var kind in (ContainerKind[])[ContainerKind.Podman, ContainerKind.Docker])
            kernel.StartContainer(kernel.AddContainer(kind, id, "nginx"));
        var process = kernel.StartProcess("python3", $"/user.slice/user-1000.slice/user@1000.service/user.slice/{prefix}{id}.scope");
        kernel.OpenNode("/dev/nvidia0", process);
        var desk = new Desk(kernel);

        var finding = desk.Refused(Target.Vfio, policy: With(_default with { Containers = Treatment.Restart })).Findings.ShouldHaveSingleItem();

        finding.Evidence.ShouldContain(line => line.Contains($"in {whose}"));
        finding.Hint.ShouldContain("users: {processes: stop}");
        desk.Planned(Target.Vfio, policy: With(_default.Everybody())).Steps().Where(s => s is StopContainer or StopProcess)
            .ShouldBe([new StopProcess(process.Pid, process.Started, "python3")]);
    }

    // ---- nvidia-persistenced, a card at a time ----

    [Fact]
    public void Where_another_card_stays_the_daemon_closes_one_card_only_and_never_stops()
    {
        var desk = new Desk(Hosts.TwoGpusPersistenced());
        var before = desk.Picture();
        var daemon = desk.Kernel.Unit(Persistenced).Process.ShouldNotBeNull();

        desk.Done(Target.Vfio, "01:00");

        desk.Kernel.Calls.ShouldContain("/usr/bin/nvidia-smi -i 0000:01:00.0 -pm 0");
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("systemctl"));
        daemon.Open.Select(file => file.Path).ShouldBe(["/dev/nvidiactl", "/dev/nvidia1"]);
        desk.Done(Target.Host, "01:00");
        desk.Kernel.Unit(Persistenced).Process.ShouldBe(daemon);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void Without_nvidia_smi_the_daemon_is_stopped_and_runs_again_for_the_card_that_stays()
    {
        var desk = new Desk(Hosts.TwoGpusPersistenced(smi: false));
        var before = desk.Picture();
        desk.Done(Target.Vfio, "01:00");
        desk.Kernel.Unit(Persistenced).Process!.Open.Select(file => file.Path).ShouldBe(["/dev/nvidiactl", "/dev/nvidia1"]);
        desk.Planned(Target.Vfio, "01:00").IsEmpty().ShouldBeTrue();
        desk.Done(Target.Host, "01:00");
        desk.Kernel.Unit(Persistenced).Process!.Open.Count.ShouldBe(3);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_unit_that_had_both_cards_works_for_the_one_that_stays_before_the_hand_over_ends()
    {
        var kernel = Hosts.TwoIdenticalGpus(new("580.126.20"));
        kernel.StartUnit(kernel.AddUnit("training.service", "python3", "/dev/nvidia0", "/dev/nvidia1"));
        kernel.StartUnit(kernel.AddUnit("ollama.service", "ollama", "/dev/nvidia0"));
        var desk = new Desk(kernel);
        desk.Done(Target.Vfio, "01:00", With(_default.Everybody()));
        kernel.Unit("training.service").Process!.Open.ShouldHaveSingleItem().Path.ShouldBe("/dev/nvidia1");
        kernel.Unit("ollama.service").State.ShouldBe("inactive");
    }

    // ---- the display ----

    [Fact]
    public void A_graphical_session_is_refused_with_its_own_word_also_under_stop_users()
    {
        var desk = new Desk(Hosts.DisplayManager());
        foreach (var users in new[] { _default, _default.Everybody() })
        {
            var finding = desk.Refused(Target.Vfio, policy: With(users)).Findings.First(f => f.Code == "gpu-in-use");
            finding.Evidence.ShouldContain(line => line.Contains("Xorg"));
            finding.Hint.ShouldContain("users: {display-manager: restart}");
            finding.Hint.ShouldNotContain("--stop-users");
        }
    }

    [Fact]
    public void With_its_word_the_display_manager_goes_first_with_everybody_in_its_session_and_comes_back()
    {
        var desk = new Desk(Hosts.DisplayManager());
        var before = desk.Picture();
        var policy = With(_default with { DisplayManager = Treatment.Restart });
        var plan = desk.Planned(Target.Vfio, policy: policy);
        plan.Steps().Where(s => s is StopUnit or StopProcess).ShouldHaveSingleItem().ShouldBe(new StopUnit(Display));
        plan.Steps().OfType<AwaitRelease>().ShouldHaveSingleItem().Users.Select(u => u.Command).Distinct().Order()
            .ShouldBe(["gnome-shell", "systemd", "systemd-logind", "Xorg"], ignoreOrder: true);
        desk.Done(Target.Vfio, policy: policy);
        desk.Done(Target.Host);
        desk.Kernel.Calls[^1].ShouldBe($"/usr/bin/systemctl start -- {Display}");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_job_in_a_login_by_ssh_does_not_count_as_part_of_the_graphical_session()
    {
        var desk = new Desk(Hosts.DisplayManager());
        desk.Kernel.OpenNode("/dev/nvidia0", desk.Kernel.StartProcess("train", "/user.slice/user-1000.slice/session-9.scope"));
        desk.Refused(Target.Vfio, policy: With(_default with { DisplayManager = Treatment.Restart })).Findings
            .ShouldContain(f => f.Code == "gpu-in-use" && f.Evidence.Any(line => line.Contains("train")) && !f.Evidence.Any(line => line.Contains("Xorg")));
    }

    [Fact]
    public void From_within_the_graphical_session_it_is_not_ended()
    {
        var desk = new Desk(Hosts.DisplayManager());
        desk.Kernel.Ourselves = desk.Kernel.StartProcess("gpu-handoff");
        desk.Refused(Target.Vfio, policy: With(_default with { DisplayManager = Treatment.Restart })).Findings
            .First(f => f.Code == "gpu-in-use").Hint.ShouldContain("text console or by ssh");
    }

    [Fact]
    public void Nobody_asks_for_a_display_manager_where_no_session_has_the_card()
    {
        var desk = new Desk(Hosts.BusyServices());
        _ = desk.Plan(Target.Vfio);
        desk.Kernel.Asked.ShouldAllBe(call => !call.Contains("display-manager"));
    }

    // ---- CUDA MPS ----

    [Fact]
    public void Mps_without_a_unit_is_told_to_quit_through_its_own_pipe_and_started_as_it_was()
    {
        var desk = new Desk(Hosts.Mps());
        var before = desk.Picture();
        desk.Done(Target.Vfio);
        desk.Kernel.Calls.ShouldContain("/usr/bin/setpriv --reuid 997 --regid 997 --clear-groups -- /usr/bin/nvidia-cuda-mps-control <<< quit");
        desk.Kernel.Calls.ShouldAllBe(call => !call.StartsWith("kill") && !call.Contains("systemctl"));
        desk.Kernel.RunningProcesses.ShouldBeEmpty();

        desk.Done(Target.Host);

        var start = desk.Kernel.Calls.Single(call => call.Contains("systemd-run"));
        start.ShouldContain("--uid=997 --gid=997");
        start.ShouldContain("--setenv=CUDA_MPS_PIPE_DIRECTORY=/run/mps");
        start.ShouldNotContain("PATH");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void Mps_that_we_started_again_is_known_as_the_same_the_next_time()
    {
        var desk = new Desk(Hosts.Mps());
        var before = desk.Picture();
        for (var round = 0; round < 3; round++)
        {
            desk.Done(Target.Vfio);
            desk.Done(Target.Host);
            desk.Picture().ShouldBe(before);
        }
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("systemctl stop"));
    }

    [Fact]
    public void A_client_of_mps_is_an_ordinary_user_and_is_named()
    {
        var desk = new Desk(Hosts.Mps());
        var client = desk.Kernel.StartMpsClient("/run/mps");
        var finding = desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem();
        finding.Evidence.ShouldContain(line => line.StartsWith($"{client.Pid} python3"));
        finding.Evidence.ShouldAllBe(line => !line.Contains("nvidia-cuda-mps"));
    }

    [Fact]
    public void With_processes_to_be_ended_mps_goes_after_its_clients()
    {
        var desk = new Desk(Hosts.Mps());
        desk.Kernel.StartMpsClient("/run/mps");
        desk.Planned(Target.Vfio, policy: With(_default.Everybody())).Steps().Where(s => s is StopProcess or StopMps or AwaitRelease)
            .Select(s => s.GetType()).ShouldBe([typeof(StopProcess), typeof(StopMps), typeof(AwaitRelease)]);
        desk.Done(Target.Vfio, policy: With(_default.Everybody()));
    }

    [Fact]
    public void Mps_that_works_for_a_client_on_another_card_is_not_told_to_quit_under_it()
    {
        var kernel = Hosts.TwoGpusMps();
        var desk = new Desk(kernel);
        var before = desk.Picture();
        var client = kernel.StartMpsClient();
        foreach (var file in client.Open.Where(file => file.Path == "/dev/nvidia0").ToList())
            file.Dispose();
        var outcome = desk.Run(Target.Vfio, "01:00").ShouldBeOfType<Outcome.RolledBack>();
        outcome.Cause!.Reason.ShouldContain($"it works for {client.Pid} python3");
        kernel.Calls.ShouldAllBe(call => !call.Contains("quit"));
        kernel.EndProcess(client);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void Mps_and_dcgm_serve_the_card_that_stays_and_know_the_other_when_it_is_back()
    {
        var desk = new Desk(Hosts.TwoGpusMps());
        var before = desk.Picture();
        desk.Done(Target.Vfio, "01:00");
        desk.Kernel.Unit("nvidia-dcgm.service").Process!.Open.Select(file => file.Path).ShouldBe(["/dev/nvidiactl", "/dev/nvidia1"]);
        desk.Kernel.RunningProcesses.Count(p => p.Name == "nvidia-cuda-mps").ShouldBe(2);
        desk.Done(Target.Host, "01:00");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void Mps_that_is_at_work_when_a_card_comes_back_is_left_at_it_and_told()
    {
        var desk = new Desk(Hosts.TwoGpusMps());
        desk.Done(Target.Vfio, "01:00");
        var client = desk.Kernel.StartMpsClient();
        desk.Done(Target.Host, "01:00");
        desk.Kernel.RunningProcesses.ShouldContain(client);
        desk.Memo.Lines.ShouldContain(line => line.StartsWith("warns stop CUDA MPS") && line.Contains($"it works for {client.Pid} python3"));
    }

    [Fact]
    public void Mps_in_somebody_elses_unit_does_not_stop_that_unit()
    {
        var kernel = Hosts.TwoIdenticalGpus(new("580.126.20"));
        kernel.StartUnit(kernel.AddUnit("training.service", "training"));
        kernel.StartMpsIn("/system.slice/training.service", isApart: false, "/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1");
        var desk = new Desk(kernel);

        var finding = desk.Refused(Target.Vfio, "01:00").Findings.ShouldHaveSingleItem();

        finding.Evidence.ShouldContain(line => line.Contains("training.service"));
        finding.Hint.ShouldContain("users: {unit: {training.service: restart}}");
        desk.Planned(Target.Vfio, "01:00", With(_default with { Unit = _default.Unit.Add("training.service", Treatment.Restart) }))
            .Steps().OfType<StopUnit>().ShouldHaveSingleItem().ShouldBe(new StopUnit("training.service") { SparesClients = true });
    }

    [Fact]
    public void Mps_that_cron_started_goes_by_itself_and_leaves_cron_alone()
    {
        var kernel = Hosts.SingleGpu();
        kernel.StartUnit(kernel.AddUnit("cron.service", "cron"));
        kernel.StartMpsIn("/system.slice/cron.service", isApart: false, "/dev/nvidiactl", "/dev/nvidia0");
        new Desk(kernel).Done(Target.Vfio);
        kernel.Unit("cron.service").State.ShouldBe("active");
    }

    [Fact]
    public void A_unit_of_mps_is_not_stopped_under_a_client_on_a_card_that_stays_and_neither_when_the_other_is_back()
    {
        const string unit = "nvidia-mps.service";
        var kernel = Hosts.TwoIdenticalGpus(new("580.126.20"));
        kernel.StartUnit(kernel.AddUnit(unit, "mps-starter", "/dev/nvidiactl", "/dev/nvidia0"));
        var desk = new Desk(kernel);
        desk.Done(Target.Vfio, "01:00");
        kernel.StartMpsIn($"/system.slice/{unit}", isApart: false, "/dev/nvidiactl", "/dev/nvidia1");
        var client = kernel.StartMpsClient();
        var calls = kernel.Calls.Count;

        desk.Done(Target.Host, "01:00");

        desk.Memo.Lines.ShouldContain(line => line.StartsWith($"warns stop {unit}") && line.Contains($"it works for {client.Pid} python3"));
        // Now it has the card that came back, too.
        kernel.StopUnit(kernel.Unit(unit));
        kernel.EndProcess(client);
        kernel.StartUnit(kernel.Unit(unit));
        kernel.StartMpsIn($"/system.slice/{unit}", isApart: false, "/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1");
        client = kernel.StartMpsClient();
        foreach (var file in client.Open.Where(file => file.Path == "/dev/nvidia0").ToList())
            file.Dispose();
        calls = kernel.Calls.Count;
        var outcome = desk.Run(Target.Vfio, "01:00").ShouldBeOfType<Outcome.RolledBack>();
        outcome.Cause!.Reason.ShouldContain($"it works for {client.Pid} python3");
        kernel.Calls.Skip(calls).ShouldAllBe(call => !call.Contains("systemctl stop"));
        kernel.RunningProcesses.ShouldContain(client);
    }

    [Fact]
    public void Mps_of_a_container_on_the_same_path_is_not_told_to_quit_in_place_of_the_hosts_and_does_not_pass_for_it()
    {
        var kernel = Hosts.TwoIdenticalGpus(new("580.126.20"));
        var inside = kernel.StartMpsIn("/lxc/107/ns/mps.scope", isApart: true, "/dev/nvidiactl", "/dev/nvidia1");
        kernel.StartMps(user: 0, nodes: ["/dev/nvidiactl", "/dev/nvidia0"]);
        var desk = new Desk(kernel);
        var before = desk.Picture();
        desk.Done(Target.Vfio, "01:00", With(_default with { Processes = Treatment.Stop }));
        desk.Kernel.Calls.ShouldAllBe(call => !call.StartsWith("kill"));
        desk.Done(Target.Host, "01:00");
        inside.ShouldAllBe(process => kernel.RunningProcesses.Contains(process));
        kernel.RunningProcesses.Count(p => p.Name == "nvidia-cuda-mps").ShouldBe(4);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_daemon_that_does_not_stop_to_begin_anew_is_told_and_does_not_cost_the_host_its_card()
    {
        var desk = new Desk(Hosts.TwoGpusMps());
        desk.Done(Target.Vfio, "01:00");
        desk.Kernel.Unit("nvidia-dcgm.service").StopTakes = TimeSpan.FromMinutes(10);
        desk.Done(Target.Host, "01:00");
        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
        desk.Memo.Lines.ShouldContain(line => line.StartsWith("warns stop nvidia-dcgm.service"));
    }

    // ---- the fabric manager ----

    const string Fabric = "nvidia-fabricmanager.service";

    static Desk WithFabric()
    {
        var kernel = Hosts.TwoIdenticalGpus(new("580.126.20"));
        kernel.StartUnit(kernel.AddUnit(Fabric, "nv-fabricmanage", "/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia1"));
        return new(kernel);
    }

    [Fact]
    public void While_other_cards_stay_the_fabric_manager_goes_by_its_own_name_only()
    {
        var desk = WithFabric();
        foreach (var users in new[] { _default, _default.Everybody() })
        {
            var finding = desk.Refused(Target.Vfio, "01:00", With(users)).Findings.ShouldHaveSingleItem();
            finding.Evidence.ShouldContain(line => line.Contains(Fabric));
            finding.Hint.ShouldContain("aborts the CUDA work of all GPUs");
            finding.Hint.ShouldContain($"users: {{unit: {{{Fabric}: restart}}}}");
            finding.Hint.ShouldNotContain("--stop-users");
        }
        var before = desk.Picture();
        var named = With(_default with { Unit = _default.Unit.Add(Fabric, Treatment.Restart) });
        desk.Done(Target.Vfio, "01:00", named);
        desk.Done(Target.Host, "01:00", named);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_card_that_comes_back_next_to_another_does_not_end_the_fabric_manager_unasked()
    {
        var desk = WithFabric();
        desk.Done(Target.Vfio, "all");
        desk.Done(Target.Host, "01:00");
        var calls = desk.Kernel.Calls.Count;
        desk.Planned(Target.Host, "02:00").Notes.ShouldContain(note => note.Contains(Fabric));
        desk.Done(Target.Host, "02:00");
        desk.Kernel.Calls.Skip(calls).ShouldAllBe(call => !call.Contains($"systemctl stop -- {Fabric}"));
        desk.Kernel.Unit(Fabric).State.ShouldBe("active");
    }

    // ---- the host's target ----

    [Fact]
    public void The_hosts_target_takes_along_what_is_bound_to_it_whatever_the_policy_and_brings_back_what_was_up()
    {
        var desk = new Desk(Hosts.HostTargets());
        var before = desk.Picture();
        desk.Done(Target.Vfio);
        desk.Kernel.Unit("ollama.service").State.ShouldBe("inactive");
        var calls = desk.Kernel.Calls.Count;

        desk.Done(Target.Host);

        desk.Kernel.Calls.Skip(calls).SkipWhile(call => !call.Contains("systemctl")).ShouldBe(
        [
            "/usr/bin/systemctl reset-failed -- gpu-handoff-host@0000:01:00.0.target",
            "/usr/bin/systemctl start --job-mode=ignore-dependencies -- gpu-handoff-host@0000:01:00.0.target",
            "/usr/bin/systemctl reset-failed -- ollama.service",
            "/usr/bin/systemctl start -- ollama.service",
        ]);
        desk.Picture().ShouldBe(before);
        desk.Kernel.Unit("jellyfin.service").State.ShouldBe("inactive");
    }

    [Fact]
    public void The_hosts_target_goes_before_all_others_that_are_stopped()
    {
        var desk = new Desk(Hosts.HostTargets());
        desk.Kernel.StartUnit(desk.Kernel.AddUnit("plex.service", "plex", "/dev/nvidia0"));
        desk.Planned(Target.Vfio, policy: With(_default.Everybody())).Steps().SkipWhile(s => s is LoadModule).Take(2).Select(s => s.Say()).ShouldBe(
        [
            "stop gpu-handoff-host@0000:01:00.0.target and what is bound to it (ollama.service)", "stop plex.service",
        ]);
    }

    [Fact]
    public void A_rollback_brings_the_target_and_its_units_back()
    {
        var desk = new Desk(Hosts.HostTargets());
        var before = desk.Picture();
        desk.Kernel.Faults.Refuse("rmmod nvidia".Equals, 16, once: true);
        desk.Run(Target.Vfio).ShouldBeOfType<Outcome.RolledBack>();
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_card_that_comes_to_the_host_without_a_record_brings_up_its_target_and_all_that_is_installed_into_it()
    {
        var desk = new Desk(Hosts.AlreadyOnVfio());
        var target = desk.Kernel.AddHostTarget(new(0, 1, 0, 0));
        desk.Kernel.AddBoundUnit(target, "ollama.service", "ollama", "/dev/nvidia0");
        desk.Kernel.StopUnit(target);
        desk.Done(Target.Host, policy: Policy.Default with { Claim = true });
        target.State.ShouldBe("active");
        desk.Kernel.Unit("ollama.service").State.ShouldBe("active");
        desk.Planned(Target.Host).IsEmpty().ShouldBeTrue();
    }

    [Fact]
    public void A_target_that_was_down_stays_down()
    {
        var desk = new Desk(Hosts.HostTargets());
        desk.Kernel.StopUnit(desk.Kernel.Unit("gpu-handoff-host@0000:01:00.0.target"));
        var before = desk.Picture();
        desk.Done(Target.Vfio);
        desk.Done(Target.Host);
        desk.Picture().ShouldBe(before);
    }

    static Desk BoundToTwoCards()
    {
        var kernel = Hosts.TwoIdenticalGpus(new("580.126.20"));
        var first = kernel.AddHostTarget(new(0, 1, 0, 0));
        var both = kernel.AddBoundUnit(first, "ollama.service", "ollama", "/dev/nvidia0", "/dev/nvidia1");
        both.BindsTo.Add(kernel.AddHostTarget(new(0, 2, 0, 0)).Name);
        kernel.StartUnit(both);
        return new(kernel);
    }

    [Theory]
    [InlineData("01:00", "02:00")]
    [InlineData("02:00", "01:00")]
    public void A_unit_that_is_bound_to_two_cards_is_started_by_the_one_that_comes_back_last(string first, string last)
    {
        var desk = BoundToTwoCards();
        desk.Done(Target.Vfio, "01:00");
        desk.Done(Target.Vfio, "02:00");
        var calls = desk.Kernel.Calls.Count;

        desk.Done(Target.Host, first);

        desk.Kernel.Calls.Skip(calls).ShouldAllBe(call => !call.Contains("ollama"));
        desk.Kernel.Unit($"gpu-handoff-host@0000:{last}.0.target").State.ShouldBe("inactive");
        desk.Done(Target.Host, last);
        desk.Kernel.Unit("ollama.service").Process!.Open.Count.ShouldBe(2);
        desk.Ledger.Homes().ShouldBeEmpty();
    }

    [Theory]
    [InlineData("backup.service", "this very program runs in it")]
    [InlineData("pveproxy.service", "others' work hangs on it")]
    public void A_bound_unit_that_may_not_be_stopped_is_a_refusal_by_name(string name, string why)
    {
        var desk = new Desk(Hosts.HostTargets());
        desk.Kernel.Ourselves = desk.Kernel.StartProcess("gpu-handoff", "/system.slice/backup.service");
        desk.Kernel.StartUnit(desk.Kernel.AddBoundUnit(desk.Kernel.Unit("gpu-handoff-host@0000:01:00.0.target"), name, "program"));
        var finding = desk.Refused(Target.Vfio, policy: With(_default.Everybody())).Findings.ShouldHaveSingleItem();
        finding.What.ShouldContain(name);
        finding.Evidence.ShouldBe([$"{name}: {why}"]);
        finding.Hint.ShouldContain("BindsTo=");
    }

    [Fact]
    public void A_bound_display_manager_is_not_stopped_from_within_its_session()
    {
        var desk = new Desk(Hosts.DisplayManager());
        desk.Kernel.Unit("gdm.service").BindsTo.Add(desk.Kernel.AddHostTarget(new(0, 1, 0, 0)).Name);
        desk.Kernel.Ourselves = desk.Kernel.StartProcess("gpu-handoff");
        desk.Refused(Target.Vfio, policy: With(_default with { DisplayManager = Treatment.Restart })).Findings.ShouldHaveSingleItem()
            .Evidence.ShouldHaveSingleItem().ShouldStartWith("gdm.service: this very program runs in the graphical session");
    }

    [Fact]
    public void A_systemctl_that_does_not_answer_is_asked_once_and_told()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.HasHostTarget = true;
        desk.Kernel.HangSystemctl();
        desk.Planned(Target.Vfio).Notes.ShouldContain(note => note.Contains("systemctl does not answer"));
        desk.Kernel.Asked.ShouldHaveSingleItem();
        desk.Done(Target.Vfio);
        desk.Planned(Target.Host).Notes.ShouldContain(note => note.Contains("systemctl does not answer"));
    }

    [Fact]
    public void Without_the_template_systemd_is_not_asked_for_it()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        desk.Done(Target.Host);
        desk.Kernel.Asked.ShouldBeEmpty();
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("systemctl"));
    }

    // ---- containers by their configs ----

    [Fact]
    public void A_container_that_has_the_card_by_its_config_alone_goes_on_and_the_plan_says_what_becomes_of_its_nodes()
    {
        var desk = new Desk(Hosts.LxcByConfig());
        var plan = desk.Planned(Target.Vfio);
        plan.Notes.Where(note => note.Contains("by its config")).Select(note => note.Split(' ')[1]).ShouldBe(["201", "202"]);
        plan.Steps().ShouldAllBe(step => !(step is StopContainer));
    }

    [Fact]
    public void A_container_that_is_refused_by_its_name_is_a_refusal_also_where_only_its_config_has_the_card()
    {
        var desk = new Desk(Hosts.LxcByConfig());
        var finding = desk.Refused(Target.Vfio, policy: With(_default.Everybody() with { Container = _default.Container.Add("201", Treatment.Refuse) }))
            .Findings.ShouldHaveSingleItem();
        finding.What.ShouldContain("container 201");
        finding.Evidence.ShouldHaveSingleItem().ShouldContain("users.container");
        // It has no card: its name is no reason.
        desk.Done(Target.Vfio, policy: With(_default with { Container = _default.Container.Add("203", Treatment.Refuse) }));
    }

    [Fact]
    public void With_leave_exactly_those_that_have_the_card_by_config_are_stopped_and_started_when_their_nodes_are_there()
    {
        var desk = new Desk(Hosts.LxcByConfig());
        var before = desk.Picture();
        desk.Done(Target.Vfio, policy: With(_default with { Containers = Treatment.Restart }));
        Running().ShouldBe(["203"]);
        desk.Done(Target.Host);
        Running().ShouldBe(["201", "202", "203"]);
        desk.Picture().ShouldBe(before);

        IEnumerable<string> Running() => ((string[])["201", "202", "203", "204"]).Where(id => desk.Kernel.Container(id).IsRunning);
    }

    [Fact]
    public void What_is_named_in_the_list_is_restarted_whether_its_use_shows_or_not_and_what_is_down_stays_down()
    {
        var desk = new Desk(Hosts.LxcByConfig());
        var before = desk.Picture();
        desk.Done(Target.Vfio, policy: With(_default with { Restarted = ["203", "204", "999"] }));
        desk.Kernel.Calls.Where(call => call.Contains("/pct ")).ShouldBe(["/usr/sbin/pct shutdown 203 --forceStop 1 --timeout 80"]);
        desk.Done(Target.Host);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void Where_no_container_runs_nobody_reads_a_config()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Survey(Target.Vfio).Containers.ShouldBeEmpty();
    }

    [Fact]
    public void What_the_admin_stops_between_two_rounds_stays_down_though_the_record_of_the_card_stays()
    {
        var kernel = Hosts.BusyServices();
        // A function that was on vfio-pci before stays there, and with it the record.
        kernel.LoadModule("vfio_pci", [], Limits.Default.Module);
        kernel.Write(new("/sys/bus/pci/devices/0000:01:00.1/driver_override"), "vfio-pci\n", Limits.Default.Write);
        kernel.Write(new("/sys/bus/pci/drivers/snd_hda_intel/unbind"), "0000:01:00.1", Limits.Default.Write);
        kernel.Write(new("/sys/bus/pci/drivers_probe"), "0000:01:00.1", Limits.Default.Write);
        var desk = new Desk(kernel);
        desk.Done(Target.Vfio, policy: With(_default.Everybody()));
        desk.Done(Target.Host);
        kernel.Unit("ollama.service").State.ShouldBe("active");
        desk.Ledger.Homes().ShouldHaveSingleItem().Stopped.ShouldBeEmpty();

        kernel.RunProgram(Programs.Systemctl, ["stop", "--", "ollama.service"], Limits.Default.Users);
        desk.Done(Target.Vfio, policy: With(_default.Everybody()));
        desk.Done(Target.Host);

        kernel.Unit("ollama.service").State.ShouldBe("inactive");
        kernel.Unit("nvidia-persistenced.service").State.ShouldBe("active");
    }

    [Fact]
    public void A_service_that_does_not_start_again_is_in_the_outcome_with_its_reason()
    {
        var kernel = Hosts.BusyServices();
        var desk = new Desk(kernel);
        desk.Done(Target.Vfio, policy: With(_default.Everybody()));
        kernel.Unit("ollama.service").IsBroken = true;

        desk.Run(Target.Host).ShouldBeOfType<Outcome.Done>().Warnings.ShouldHaveSingleItem().ShouldContain("start ollama.service");
    }
}
