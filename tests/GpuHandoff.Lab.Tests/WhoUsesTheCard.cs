namespace GpuHandoff.Lab.Tests;

/// <summary>Units, containers and processes that have the card open, under a real systemd, a real Podman, in real namespaces.</summary>
[Trait("Category", "Lab")]
[Collection(HostAtWork.Collection)]
public sealed class WhoUsesTheCard(HostAtWork work)
{
    const string Everybody = "--stop-users";

    Host Host => work.Host;

    LabVm Vm => work.Vm;

    string Target => $"gpu-handoff-host@{work.Gpu.Address}.target";

    [LabFact]
    public void NVIDIAs_own_daemons_step_aside_unasked_and_come_back() => work.CaseOfUsers(() =>
    {
        Vm.Run("systemctl start nvidia-persistenced nvidia-mps").Ok();
        Serves("nvidia-persiste", "nvidia-cuda-mps");
        var before = Host.Record();
        Host.Tool(0, "to_vfio");
        States("nvidia-persistenced", "nvidia-mps").ShouldBe("inactive inactive");
        Host.Tool(0, "to_nvidia");
        Serves("nvidia-persiste", "nvidia-cuda-mps");
        Host.Record().ShouldBe(before);
    });

    [LabFact]
    public void An_MPS_daemon_that_belongs_to_no_unit_is_told_to_quit_and_runs_again_with_its_pipes() => work.CaseOfUsers(() =>
    {
        // As from a session or rc.local: in a control group that is no unit's.
        Vm.Run("""
            mkdir -p /sys/fs/cgroup/by-hand && echo $BASHPID > /sys/fs/cgroup/by-hand/cgroup.procs
            CUDA_MPS_PIPE_DIRECTORY=/tmp/mps nvidia-cuda-mps-control -d
            """).Ok();
        Serves("nvidia-cuda-mps");
        Host.Tool(0, "to_vfio");
        Vm.Run("pgrep -l nvidia-cuda; ls -A /tmp/mps").Text.ShouldBe("");
        Host.Tool(0, "to_nvidia");
        Serves("nvidia-cuda-mps");
        // It is asked by the pipe that it had.
        Vm.Run("echo quit | CUDA_MPS_PIPE_DIRECTORY=/tmp/mps nvidia-cuda-mps-control").Ok();
        Vm.Run("for i in $(seq 50); do pgrep nvidia-cuda > /dev/null || exit 0; sleep 0.1; done; exit 1").Ok();
    });

    [LabFact]
    public void A_unit_bound_to_the_hosts_target_goes_and_comes_with_the_card_and_one_that_was_down_stays_down() => work.CaseOfUsers(() =>
    {
        Vm.Run($"""
            for unit in ollama jellyfin; do
                mkdir -p /run/systemd/system/$unit.service.d
                sed 's/gpu-handoff-host@[^ ]*\.target/{Target}/' /etc/systemd/system/examples/ollama.service.d/gpu-handoff.conf \
                    > /run/systemd/system/$unit.service.d/gpu-handoff.conf
            done
            systemctl daemon-reload && systemctl enable --quiet ollama jellyfin && systemctl start ollama && systemctl stop jellyfin
            """).Ok();
        try
        {
            States("ollama", "jellyfin", Target).ShouldBe("active inactive active");
            var before = Host.Record();
            Host.Tool(0, "to_vfio");
            States("ollama", "jellyfin", Target).ShouldBe("inactive inactive inactive");
            Host.Tool(0, "to_nvidia");
            States("ollama", "jellyfin", Target).ShouldBe("active inactive active");
            Host.Record().ShouldBe(before);
        }
        finally
        {
            Vm.Run($"""
                systemctl disable --quiet ollama jellyfin; systemctl stop ollama {Target}
                rm -r /run/systemd/system/{"{ollama,jellyfin}"}.service.d; systemctl daemon-reload
                """);
        }
    });

    [LabFact]
    public void A_unit_is_started_again_though_systemd_has_had_enough_of_its_starts() => work.CaseOfUsers(() =>
    {
        Vm.Run("systemctl daemon-reload; systemctl start folding; systemctl stop folding").Ok();
        // What the case is about: by itself systemd would not start it a second time.
        Vm.Run("systemctl start folding").ExitCode.ShouldNotBe(0);
        Vm.Run("systemctl reset-failed folding; systemctl start folding").Ok();

        Host.Refused("to_vfio").ShouldContain("folding.service");
        Host.Tool(0, $"to_vfio {Everybody}");
        States("folding").ShouldBe("inactive");
        Host.Tool(0, "to_nvidia");
        States("folding").ShouldBe("active");
    });

    [LabFact]
    public void A_process_of_a_login_is_refused_by_name_and_ended_with_leave_only() => work.CaseOfUsers(() =>
    {
        // A session of logind's, as one gets at a terminal: its control group is no unit that could be started again.
        Vm.Run("""
            systemd-run --quiet --collect --unit=trainer -p PAMName=login -p User=root -p TTYPath=/dev/tty2 \
                bash -c 'trap "" TERM; exec -a trainer sleep 100000 < /dev/nvidia0'
            for i in $(seq 100); do grep -qs session- /proc/$(pgrep -x -f 'trainer 100000')/cgroup && exit 0; sleep 0.1; done; exit 1
            """).Ok();
        var pid = Vm.Run("pgrep -x -f 'trainer 100000'").Ok().Text;
        var refused = Host.Refused("to_vfio");
        refused.ShouldContain($"{pid} sleep");
        refused.ShouldContain("/dev/nvidia0");

        // It is deaf to SIGTERM.
        var away = Host.Tool(0, $"to_vfio {Everybody}");
        away.Errors.ShouldContain(pid);
        Vm.Run($"test -e /proc/{pid}").ExitCode.ShouldBe(1);
        Host.Tool(0, "to_nvidia");
    });

    [LabFact]
    public void Containers_with_their_own_nodes_in_their_own_namespaces_are_named_stopped_and_started_again() => work.CaseOfUsers(() =>
    {
        Vm.Run("pct start 107 && pct start 120").Ok();
        var id = StartPodmansContainer();
        // Neither the path nor the inode is the host's.
        Vm.Run("fuser /dev/nvidia0").ExitCode.ShouldBe(1);
        var before = Host.Record();
        before.ShouldContain("busybox of /lxc/107/ns has 195:0");

        var refused = Host.Refused("to_vfio");
        refused.ShouldContain("container 107");
        refused.ShouldContain(id[..12]);
        Host.Tool(0, $"to_vfio {Everybody}");
        Containers().ShouldBe("stopped stopped running");
        Vm.Run("podman ps --quiet").Ok().Text.ShouldBe("");
        Host.Tool(0, "to_nvidia");
        Host.Record().ShouldBe(before);
    });

    [LabFact]
    public void LXC_RESTART_IDS_is_leave_for_the_containers_that_it_names_and_one_that_was_stopped_stays_stopped() => work.CaseOfUsers(() =>
    {
        Vm.Run("pct start 107").Ok();
        var before = Host.Record();
        Vm.Run("LXC_RESTART_IDS='107 115' gpu-handoff to_vfio").Ok();
        Containers().ShouldBe("stopped stopped stopped");
        Vm.Run("LXC_RESTART_IDS='107 115' gpu-handoff to_nvidia").Ok();
        Containers().ShouldBe("running stopped stopped");
        Host.Record().ShouldBe(before);

        var wrong = Vm.Run("LXC_RESTART_IDS='107 jupyter' gpu-handoff to_vfio");
        wrong.ExitCode.ShouldBe(2);
        wrong.Errors.ShouldContain("jupyter");
        Host.Record().ShouldBe(before);
    });

    /// <summary>
    /// "Done when" of the whole matter. The stand-in, whose card can be in use, has no DRM: so the console is on the VGA card,
    /// and both cards go. What that cannot show is a console on NVIDIA's own framebuffer.
    /// </summary>
    [LabFact]
    public void A_host_at_work_is_exactly_as_before_after_all_its_cards_went_and_came_back() => work.CaseOfUsers(() =>
    {
        StartPodmansContainer();
        Vm.Run($"""
            mkdir -p /run/systemd/system/ollama.service.d
            sed 's/gpu-handoff-host@[^ ]*\.target/{Target}/' /etc/systemd/system/examples/ollama.service.d/gpu-handoff.conf \
                > /run/systemd/system/ollama.service.d/gpu-handoff.conf
            systemctl daemon-reload && systemctl enable --quiet ollama
            systemctl start nvidia-persistenced nvidia-mps ollama folding && pct start 107
            """).Ok();
        try
        {
            string[] users = ["nvidia-persiste", "nvidia-cuda-mps", "sleep of /system.slice/ollama", "busybox of /lxc/107/ns", "busybox of /machine.slice/libpod"];
            var (before, picture) = (Settled(record => users.All(record.Contains)), HostAtWork.Screen(Vm, "at-work-0-before"));
            File.WriteAllText(Path.Combine(Vm.Evidence, "at-work-0-before.txt"), before);
            foreach (var user in users)
                before.ShouldContain(user);

            // The policy's word, not the command line's: so a hook comes along.
            Host.Refused($"to_vfio --gpu {work.Gpu.Address}").ShouldContain("folding.service");
            Vm.Run("printf 'users:\n  units: restart\n  containers: restart\n' > /etc/gpu-handoff.yaml").Ok();
            Host.Tool(0, $"to_vfio --gpu {work.Gpu.Address}");
            Host.Tool(0, $"to_vfio --gpu {Vm.Display}");
            var away = Host.Record();
            File.WriteAllText(Path.Combine(Vm.Evidence, "at-work-1-away.txt"), away);
            away.ShouldNotContain(" has 195:");
            Vm.Screendump("at-work-1-away").IsBlank().ShouldBeTrue();

            Host.Tool(0, $"to_nvidia --gpu {Vm.Display}");
            Host.Tool(0, $"to_nvidia --gpu {work.Gpu.Address}");
            var after = Settled(record => record == before);
            File.WriteAllText(Path.Combine(Vm.Evidence, "at-work-2-back.txt"), after);
            after.ShouldBe(before);
            HostAtWork.Screen(Vm, "at-work-2-back").ShowsTheSameAs(picture).ShouldBeTrue();
        }
        finally
        {
            Vm.Run($"systemctl disable --quiet ollama; systemctl stop ollama {Target}; rm -r /run/systemd/system/ollama.service.d; systemctl daemon-reload");
        }
    });

    /// <summary>The record as soon as it is so, or as it is after a while: who was just started opens the card when he comes to it.</summary>
    string Settled(Func<string, bool> isSo)
    {
        var record = Host.Record();
        for (var tries = 0; tries < 20 && !isSo(record); tries++)
        {
            Thread.Sleep(500);
            record = Host.Record();
        }
        return record;
    }

    /// <summary>They have the card open; a program that was just started may need a moment for that.</summary>
    void Serves(params IReadOnlyList<string> programs)
    {
        foreach (var program in programs)
        {
            Vm.Run($"for i in $(seq 50); do fuser -v /dev/nvidia0 2>&1 | grep -q {program} && exit 0; sleep 0.1; done; fuser -v /dev/nvidia0; exit 1").Ok();
        }
    }

    string States(params IReadOnlyList<string> units) => Vm.Run($"systemctl is-active {string.Join(' ', units)}").Text.ReplaceLineEndings(" ");

    string Containers() => Vm.Run("for id in 107 115 120; do pct status $id; done").Ok().Text.Replace("status: ", "").ReplaceLineEndings(" ");

    string StartPodmansContainer() => Vm.Run("""
        touch /run/podman-in-use
        podman create --quiet --network none --device /dev/nvidia0 --name render --rootfs /var/lib/render \
            /bin/busybox sh -c 'trap exit TERM; /bin/busybox sleep 100000 < /dev/nvidia0 & wait'
        podman start render > /dev/null
        # Its node is its own: nobody finds it by the path of the host's.
        for i in $(seq 50); do
            [ "$(stat -L -c %Hr:%Lr /proc/$(pgrep -x -f '/bin/busybox sleep 100000' | tail -1)/fd/0)" != 195:0 ] || exit 0; sleep 0.1
        done
        exit 1
        """).Ok().Text;
}
