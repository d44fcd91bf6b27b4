using System.Text.Json;
using GpuHandoff.Formats;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>Who uses a GPU is found however it is used, and named so that an admin knows whom to stop.</summary>
public class FindingHolders
{
    const string Docker = "/system.slice/docker-4e8b1c9d2f7a4e8b1c9d2f7a4e8b1c9d2f7a4e8b1c9d2f7a4e8b1c9d2f7a1234.scope";

    static SimulatedProcess Holding(SimulatedKernel kernel, string node, string name, string cgroup = "/system.slice/x.service")
    {
        var process = kernel.StartProcess(name, cgroup);
        kernel.OpenNode(node, process);
        return process;
    }

    [Theory]
    [InlineData(FreeBy.Unload)]
    [InlineData(FreeBy.Unbind)]
    public void A_service_is_named_with_its_user_and_its_unit_and_not_a_byte_is_written(FreeBy by)
    {
        var desk = new Desk(Hosts.SingleGpu());
        Holding(desk.Kernel, "/dev/nvidia0", "ollama", "/system.slice/ollama.service").User = 997;
        var finding = desk.Refused(Target.Vfio, policy: Policy.Default with { By = by }).Findings.ShouldHaveSingleItem();
        finding.What.ShouldBe("0000:01:00 (NVIDIA GeForce RTX 4090) is in use");
        finding.Evidence[0].ShouldBe("4211 ollama (/dev/nvidia0) user ollama, ollama.service");
        desk.Kernel.Calls.ShouldBeEmpty();
    }

    [Fact]
    public void A_containers_own_node_is_found_by_its_number_and_the_container_is_named()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var process = desk.Kernel.StartProcess("python3", "/lxc/107/ns/system.slice/jupyter.service");
        process.CommandLine = ["python3", "/srv/train.py"];
        process.User = 100000;
        process.PidNamespace = "pid:[4026532999]";
        // Made with mknod in the container: another path, another inode, another owner.
        desk.Kernel.OpenNode(new DeviceNode(195, 0, 0x1b6, 100000, 100000), "/srv/devices/gpu", process);
        desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem().Evidence[0]
            .ShouldBe("4211 python3 train.py (/srv/devices/gpu) in container 107");
        var user = desk.Survey().Users.ShouldHaveSingleItem();
        user.Of.ShouldBe(new Belonging(Container: new(ContainerKind.Lxc, "107"), User: "100000"));
        user.Apart.ShouldBeTrue();
    }

    [Fact]
    public void A_user_is_data_too_with_the_words_of_the_page_on_commands()
    {
        var desk = new Desk(Hosts.SingleGpu());
        Holding(desk.Kernel, "/dev/nvidia0", "python3", "/lxc/107/ns/init.scope");
        var json = JsonSerializer.Serialize(desk.Survey(), Json.Plain.Machine);
        json.ShouldContain("""
            "of":{"unit":null,"container":{"kind":"lxc","id":"107"},"vm":null,"user":"root"},"started":
            """);
    }

    [Fact]
    public void A_docker_container_is_named_by_the_digits_that_docker_shows()
    {
        var desk = new Desk(Hosts.SingleGpu());
        Holding(desk.Kernel, "/dev/nvidia-uvm", "python3", Docker);
        desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem().Evidence[0]
            .ShouldBe("4211 python3 (/dev/nvidia-uvm) in Docker container 4e8b1c9d2f7a");
    }

    [Fact]
    public void A_process_in_other_namespaces_without_a_known_manager_is_told_to_be_in_a_container()
    {
        var desk = new Desk(Hosts.SingleGpu());
        Holding(desk.Kernel, "/dev/nvidia0", "cuda", "/").PidNamespace = "pid:[4026532999]";
        desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem().Evidence[0]
            .ShouldBe("4211 cuda (/dev/nvidia0) in a container (other namespaces)");
    }

    [Fact]
    public void A_mapping_whose_descriptor_is_closed_is_found()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        var process = desk.Kernel.StartProcess("cuda");
        desk.Kernel.OpenNode("/dev/nvidia0", process).KeepOnlyItsMapping();
        desk.Refused(Target.Vfio, "01:00").Findings.ShouldHaveSingleItem().Evidence
            .ShouldBe(["4211 cuda (/dev/nvidia0, mapped) user alice"]);
        desk.Planned(Target.Vfio, "02:00").Steps().ShouldNotBeEmpty();
    }

    [Theory]
    [InlineData(FreeBy.Unload)]
    [InlineData(FreeBy.Unbind)]
    public void An_open_i2c_adapter_of_the_card_is_named_whichever_way_it_is_freed(FreeBy by)
    {
        var desk = new Desk(Hosts.SingleGpu());
        var adapter = desk.Kernel.List(new("/sys/bus/pci/devices/0000:01:00.0")).First(name => name.StartsWith("i2c-", StringComparison.Ordinal));
        Holding(desk.Kernel, $"/dev/{adapter}", "ddcutil", "/user.slice/user-1000.slice/session-2.scope");
        desk.Refused(Target.Vfio, policy: Policy.Default with { By = by }).Findings.ShouldHaveSingleItem()
            .Evidence[0].ShouldBe($"4211 ddcutil (/dev/{adapter}) user alice");
    }

    [Fact]
    public void A_console_on_the_card_is_no_user_but_a_program_that_draws_on_it_is()
    {
        var desk = new Desk(Hosts.NvidiaConsole());
        desk.Planned(Target.Vfio).Steps().ShouldNotBeEmpty();
        Holding(desk.Kernel, "/dev/fb0", "fbi");
        desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem().Evidence.ShouldContain("4211 fbi (/dev/fb0) user root, x.service");
    }

    [Fact]
    public void A_card_that_logind_keeps_open_is_freed_by_ending_the_session_and_not_by_stopping_logind()
    {
        var desk = new Desk(Hosts.SingleGpu(new(Modeset: true)));
        var card = "/dev/dri/" + desk.Survey().DrmCards.Single().Nodes[0];
        desk.Kernel.OpenNode(card, desk.Kernel.StartProcess("systemd", "/init.scope", pid: 1));
        Holding(desk.Kernel, card, "systemd-logind", "/system.slice/systemd-logind.service");
        var finding = desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem();
        finding.Evidence.ShouldContain($"1 systemd ({card}) user root");
        finding.Evidence.ShouldContain($"4211 systemd-logind ({card}) user root, systemd-logind.service");
        finding.Hint.ShouldStartWith("end the graphical session");
    }

    [Fact]
    public void An_initialised_card_that_nobody_shows_is_told_with_those_who_might_be_it()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        var gpu = desk.Survey().Gpus[0].Address;
        var process = desk.Kernel.StartProcess("cuda", "/system.slice/cuda.service");
        desk.Kernel.RegisterWithUvm(desk.Kernel.OpenNode("/dev/nvidia-uvm", process), gpu);
        desk.Refused(Target.Vfio, "01:00").Findings.ShouldHaveSingleItem().Evidence.ShouldBe(
        [
            "nvidia has 1 interrupts for 0000:01:00.0, and no process shows a node of it open",
            "maybe 4211 cuda (/dev/nvidia-uvm) user root, cuda.service",
        ]);
    }

    [Fact]
    public void Persistence_mode_without_a_daemon_is_told_by_name()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        desk.Kernel.SetLegacyPersistence(desk.Survey().Gpus[0].Address, on: true);
        var finding = desk.Refused(Target.Vfio, "01:00").Findings.ShouldHaveSingleItem();
        finding.Evidence.ShouldBe(["nvidia has 1 interrupts for 0000:01:00.0, and no process shows a node of it open"]);
        finding.Hint.ShouldBe(
            "switch persistence mode off (nvidia-smi -pm 0); else a kernel client or a hidden descriptor has it, and only unloading can tell");
    }

    [Fact]
    public void The_jack_of_a_sound_card_may_stay_open_and_its_mixer_may_not()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var audio = desk.Survey().Gpus[0].Functions[1];
        Holding(desk.Kernel, audio.YieldingNodes.ShouldHaveSingleItem().Path, "systemd-logind", "/system.slice/systemd-logind.service");
        desk.Planned(Target.Vfio).Steps().ShouldNotBeEmpty();
        Holding(desk.Kernel, "/dev/snd/controlC0", "pipewire", "/user.slice/user-1000.slice/user@1000.service/session.slice/pipewire.service");
        desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem().Evidence.ShouldBe(["4212 pipewire (/dev/snd/controlC0) user alice"]);
    }

    [Fact]
    public void What_is_plugged_into_the_cards_usb_port_does_not_leave_the_host_unasked()
    {
        var functions = Hosts.Card(1).Append(Hosts.Function(1, 2, 0x1ada, 0x0c0330) with { UsbDevices = ["USB Receiver"] });
        var desk = new Desk(new HostBuilder().With(functions).WithNvidiaDriver(new()).Loading("snd_hda_intel", "xhci_pci", "nvidia").Boot());
        var finding = desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem();
        finding.What.ShouldBe("0000:01:00.2 (10de:1ada USB controller) has USB devices");
        finding.Evidence.ShouldBe(["3-1 USB Receiver"]);
        finding.Hint.ShouldBe("unplug them, or let them go to the VM too: --accept-neighbour 0000:01:00.2");
        desk.Done(Target.Vfio, policy: Policy.Default with { Accepted = [desk.Survey().Gpus[0].Functions[2].Address] });
    }

    [Fact]
    public void A_vm_is_named_by_its_number()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        desk.Kernel.StartVm("111", [.. desk.Survey().Gpus[0].Functions.Select(f => f.Address)]);
        desk.Refused(Target.Host).Findings.ShouldHaveSingleItem().Evidence.ShouldBe(["4211 kvm (/dev/vfio/11) VM 111"]);
    }

    [Fact]
    public void A_vm_that_is_gone_but_not_done_still_has_the_card()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        var vm = desk.Kernel.StartVm("111", [.. desk.Survey().Gpus[0].Functions.Select(f => f.Address)]);
        desk.Kernel.StopVm(vm, teardown: TimeSpan.FromSeconds(3));
        var finding = desk.Refused(Target.Host).Findings.ShouldHaveSingleItem();
        finding.Code.ShouldBe("vm-has-the-gpu");
        finding.Evidence.ShouldBe(["vfio-pci has 2 open devices and no process shows one: a VM that is just ending, or a hidden descriptor"]);
        desk.Kernel.Pause(TimeSpan.FromSeconds(3));
        desk.Done(Target.Host);
    }

    [Fact]
    public void Another_vm_with_another_card_keeps_nobody_from_handing_this_one_back()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        desk.Done(Target.Vfio, "all");
        desk.Kernel.StartVm("111", [.. desk.Survey().Gpus[1].Functions.Select(f => f.Address)]);
        desk.Survey().Vfio.ShouldBe(new VfioUse(Open: 2, Shown: 2));
        desk.Done(Target.Host, "01:00");
    }

    [Fact]
    public void A_dying_vm_is_seen_next_to_a_running_one()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        desk.Done(Target.Vfio, "all");
        var gpus = desk.Survey().Gpus;
        desk.Kernel.StartVm("111", [.. gpus[1].Functions.Select(f => f.Address)]);
        desk.Kernel.StopVm(desk.Kernel.StartVm("112", [gpus[0].Address]), teardown: TimeSpan.FromSeconds(3));
        desk.Refused(Target.Host, "01:00").Findings.ShouldHaveSingleItem().Evidence[0].ShouldStartWith("vfio-pci has 1 open devices");
    }

    [Fact]
    public void Nobody_is_looked_for_where_the_counts_say_that_there_is_nobody()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.StartProcess("sshd");
        desk.Survey().Users.ShouldBeEmpty();
        GpuHandoff.Survey.Holders.AreDue(desk.Survey()).ShouldBeFalse();
    }

    [Theory]
    [InlineData("/dev/nvidiactl")]
    [InlineData("/dev/nvidia-modeset")]
    [InlineData("/dev/dri/card0")]
    [InlineData("/dev/dri/renderD128")]
    [InlineData("/dev/snd/pcmC0D3p")]
    [InlineData("/dev/fb0")]
    [InlineData("/dev/i2c-3")]
    public void A_look_is_due_whichever_node_is_open(string node)
    {
        var desk = new Desk(Hosts.NvidiaConsole());
        Holding(desk.Kernel, node, "holder");
        desk.Survey().Users.ShouldHaveSingleItem().Path.ShouldBe(node);
    }

    [Fact]
    public void A_cuda_process_that_opens_nothing_below_dev_dri_is_found_all_the_same()
    {
        var desk = new Desk(Hosts.SingleGpu(new(Modeset: false)));
        var job = desk.Kernel.StartProcess("python3");
        desk.Kernel.OpenNode("/dev/nvidia0", job);

        var found = desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem();

        found.Evidence.ShouldContain(line => line.StartsWith($"{job.Pid} python3 (/dev/nvidia0)"));
        found.Evidence.ShouldNotContain(line => line.Contains("/dev/dri"));
    }

    [Fact]
    public void The_other_cards_job_goes_on_and_its_persistence_mode_stays_as_it_is()
    {
        var kernel = Hosts.TwoIdenticalGpus(new("580.126.20"));
        kernel.InstallNvidiaSmi();
        kernel.SetLegacyPersistence(new(0, 2, 0, 0), on: true);
        var job = kernel.StartProcess("python3");
        kernel.OpenNode("/dev/nvidia1", job);
        var desk = new Desk(kernel);

        desk.Done(Target.Vfio, "01:00");

        job.Open.ShouldHaveSingleItem().Path.ShouldBe("/dev/nvidia1");
        Surveyor.PersistenceOf(new(0, 2, 0, 0), kernel).ShouldBe(true);
        desk.DriverOf("0000:02:00.0").ShouldBe("nvidia");
        desk.Done(Target.Host, "01:00");
        job.Open.ShouldHaveSingleItem();
        Surveyor.PersistenceOf(new(0, 2, 0, 0), kernel).ShouldBe(true);
    }

    // ---- what is held, and what only looks like it ----

    public static TheoryData<string, string> NodesThatAnybodyMayName => new()
    {
        { "single-gpu", "/dev/nvidia0" }, { "single-gpu", "/dev/nvidiactl" }, { "single-gpu", "/dev/snd/controlC0" }, { "two-identical-gpus", "/dev/nvidia0" },
    };

    [Theory]
    [MemberData(nameof(NodesThatAnybodyMayName))]
    public void A_descriptor_that_was_opened_with_o_path_keeps_no_gpu_from_a_vm(string host, string node)
    {
        foreach (var by in new[] { FreeBy.Auto, FreeBy.Unbind })
        {
            var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
            desk.Kernel.OpenPathOnly(node, desk.Kernel.StartProcess("opath"));
            // Another GPU is at work, so that every process is looked at.
            if (host == "two-identical-gpus")
                Holding(desk.Kernel, "/dev/nvidia1", "cuda");
            desk.Done(Target.Vfio, "01:00", Policy.Default with { By = by });
        }
    }

    [Fact]
    public void Nor_does_it_keep_one_from_coming_home_or_make_its_process_a_vm()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        var process = desk.Kernel.StartProcess("qemu-system-x86");
        process.CommandLine = ["/usr/bin/kvm", "-id", "101"];
        desk.Kernel.OpenPathOnly("/dev/vfio/11", process);
        desk.Survey().Users.ShouldBeEmpty();
        desk.Done(Target.Host);
    }

    [Theory]
    [InlineData("single-gpu", "/dev/snd/controlC0", "snd_hda_intel")]
    [InlineData("single-gpu", "/dev/snd/pcmC0D3p", "snd_hda_intel")]
    [InlineData("four-functions", "i2c", "i2c_nvidia_gpu")]
    public void A_count_of_a_siblings_driver_that_no_process_explains_is_a_refusal_and_stops_an_unbind(string host, string node, string module)
    {
        foreach (var by in new[] { FreeBy.Unload, FreeBy.Unbind })
        {
            var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
            if (node == "i2c")
                node = $"/dev/{desk.Kernel.List(Sys.Function(new(0, 1, 0, 3))).First(n => n.StartsWith("i2c-", StringComparison.Ordinal))}";
            var policy = Policy.Default with { By = by };
            var plan = desk.Planned(Target.Vfio, policy: policy);
            var hidden = desk.Kernel.StartProcess("socket-activated");
            desk.Kernel.OpenNode(node, hidden).PutInFlight();

            var finding = desk.Refused(Target.Vfio, policy: policy).Findings.ShouldHaveSingleItem();
            finding.Code.ShouldBe("sibling-in-use");
            finding.Evidence[0].ShouldContain($"module {module} has 1 users that are no modules, and processes explain 0");

            // It came after the plan.
            var before = desk.Picture();
            desk.Run(plan, policy).ShouldBeOfType<Outcome.RolledBack>(desk.Memo.ToString()).Cause!.Reason.ShouldContain(module);
            desk.Picture().ShouldBe(before);
        }
    }

    [Fact]
    public void Alsa_names_the_owner_of_a_substream_whose_descriptor_no_table_shows()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var player = desk.Kernel.StartProcess("player");
        desk.Kernel.OpenNode("/dev/snd/pcmC0D3p", player).PutInFlight();
        desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem().Evidence[0].ShouldContain($"ALSA names process {player.Pid} as owner of a substream");
    }

    [Theory]
    [InlineData("closed", null)]
    [InlineData("state: RUNNING\nowner_pid   : 4211\ntrigger_time: 1.0", 4211)]
    [InlineData("owner_pid   : -1", null)]
    [InlineData("owner_pid   : x", null)]
    [InlineData("", null)]
    public void The_owner_of_a_substream_is_in_its_status(string status, int? owner) => Substreams.Parse(status).ShouldBe(owner);

    [Fact]
    public void A_file_of_proc_asound_that_any_user_may_open_vetoes_nothing_though_it_counts()
    {
        foreach (var host in new[] { "single-gpu", "two-identical-gpus" })
        {
            var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
            desk.Kernel.OpenSoundInfo(0, desk.Kernel.StartProcess("sleep"));
            ModuleList.Parse(desk.Kernel.Read(Sys.Proc / "modules")!).First(m => m.Name == "snd_hda_intel").Users().ShouldBe(1);
            desk.Done(Target.Vfio, "01:00");
        }
    }

    [Fact]
    public void A_duplicate_of_another_sound_cards_descriptor_hides_no_open_substream_of_this_one()
    {
        var desk = new Desk(new HostBuilder().With(Hosts.Card(1)).With(Hosts.Card(2)).WithNvidiaDriver(new()).Loading("nvidia", "nvidia_uvm", "snd_hda_intel").Boot());
        var plan = desk.Planned(Target.Vfio, "01:00");
        var mine = desk.Kernel.List(Sys.Function(new(0, 1, 0, 1)) / "sound")[0]["card".Length..];
        var other = desk.Kernel.List(Sys.Function(new(0, 2, 0, 1)) / "sound")[0]["card".Length..];
        var player = desk.Kernel.StartProcess("player");
        desk.Kernel.OpenNode($"/dev/snd/pcmC{mine}D3p", player).PutInFlight();
        desk.Kernel.OpenNode($"/dev/snd/controlC{other}", player).Duplicate();
        var before = desk.Picture();
        desk.Run(plan).ShouldBeOfType<Outcome.RolledBack>(desk.Memo.ToString()).Cause!.Reason.ShouldContain($"process {player.Pid} has a substream");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_duplicate_of_another_sound_cards_descriptor_stands_for_no_hidden_control_of_this_one()
    {
        var desk = new Desk(new HostBuilder().With(Hosts.Card(1)).With(Hosts.Card(2)).WithNvidiaDriver(new()).Loading("nvidia", "nvidia_uvm", "snd_hda_intel").Boot());
        var mine = desk.Kernel.List(Sys.Function(new(0, 1, 0, 1)) / "sound")[0]["card".Length..];
        var other = desk.Kernel.List(Sys.Function(new(0, 2, 0, 1)) / "sound")[0]["card".Length..];
        var process = desk.Kernel.StartProcess("mixer");
        desk.Kernel.OpenNode($"/dev/snd/controlC{other}", process).Duplicate();
        desk.Planned(Target.Vfio, "01:00");
        desk.Kernel.OpenNode($"/dev/snd/controlC{mine}", process).PutInFlight();
        desk.Refused(Target.Vfio, "01:00").Findings.ShouldHaveSingleItem().Evidence[0].ShouldContain("has 2 users that are no modules, and processes explain 1");
    }

    [Fact]
    public void The_clients_of_a_timer_are_those_below_the_lines_of_its_card()
    {
        const string timers = """
            G0: system timer : 4000.000us (10000000 ticks)
              Client application 99 : stopped
            P1-3-0: PCM playback 1-3-0 : SLAVE
              Client application 4211 : running
            P10-3-0: PCM playback 10-3-0 : SLAVE
              Client application 4212 : running
            """;
        Substreams.TimerClients(timers, "card1").ShouldBe([4211]);
        Substreams.TimerClients(timers, "card10").ShouldBe([4212]);
        Substreams.TimerClients("", "card1").ShouldBeEmpty();
    }

    [Fact]
    public void A_count_that_another_sound_cards_user_explains_is_no_reason_to_refuse()
    {
        var desk = new Desk(new HostBuilder().With(Hosts.Card(1)).With(Hosts.Card(2)).WithNvidiaDriver(new()).Loading("nvidia", "nvidia_uvm", "snd_hda_intel").Boot());
        var other = desk.Kernel.List(Sys.Function(new(0, 2, 0, 1)) / "sound")[0]["card".Length..];
        Holding(desk.Kernel, $"/dev/snd/controlC{other}", "pipewire");
        Holding(desk.Kernel, $"/dev/snd/pcmC{other}D3p", "mpd");
        desk.Done(Target.Vfio, "01:00");
        desk.DriverOf("0000:01:00.1").ShouldBe("vfio-pci");
    }

    [Fact]
    public void A_thread_with_a_table_of_its_own_is_found_and_its_process_named()
    {
        foreach (var (host, node) in new[] { ("single-gpu", "/dev/nvidia0"), ("single-gpu", "/dev/snd/controlC0"), ("two-identical-gpus", "/dev/nvidia0") })
        {
            var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
            var process = desk.Kernel.StartProcess("worker");
            var thread = new SimulatedThread(process.Pid + 1000, "pool-1");
            process.Threads.Add(thread);
            desk.Kernel.OpenNode(node, process).KeepInThread(thread);
            desk.Refused(Target.Vfio, "01:00").Findings.ShouldHaveSingleItem().Evidence[0].ShouldBe($"{process.Pid} worker ({node}) user alice");
        }
    }

    // ---- processes that cannot be looked at ----

    [Fact]
    public void Processes_that_could_not_be_looked_at_are_named_in_the_plan_and_veto_nothing_where_the_kernel_counts()
    {
        var desk = new Desk(Hosts.TwoIdenticalGpus());
        Holding(desk.Kernel, "/dev/nvidia1", "cuda");
        var blinds = Enumerable.Range(0, 12).Select(_ => desk.Kernel.StartProcess("big")).ToList();
        blinds.ForEach(b => b.IsUnreadable = true);
        var plan = desk.Planned(Target.Vfio, "01:00");
        plan.Notes[0].ShouldContain($"process {blinds[0].Pid}, {blinds[1].Pid}, {blinds[2].Pid}, {blinds[3].Pid}, {blinds[4].Pid} and 7 more");
        desk.Run(plan).ShouldBeOfType<Outcome.Done>(desk.Memo.ToString());
    }

    [Fact]
    public void One_of_them_that_has_the_gpu_is_a_refusal_by_the_count_and_named_as_maybe_the_one()
    {
        foreach (var (node, code) in new[] { ("/dev/nvidia0", "gpu-in-use"), ("/dev/snd/controlC0", "sibling-in-use") })
        {
            var desk = new Desk(Hosts.TwoIdenticalGpus());
            var plan = desk.Planned(Target.Vfio, "01:00");
            var process = desk.Kernel.StartProcess("big");
            desk.Kernel.OpenNode(node, process);
            process.IsUnreadable = true;
            var finding = desk.Refused(Target.Vfio, "01:00").Findings.ShouldHaveSingleItem();
            finding.Code.ShouldBe(code);
            string.Join('\n', finding.Evidence).ShouldContain($"process {process.Pid} ");
            desk.Run(plan).ShouldBeOfType<Outcome.RolledBack>(desk.Memo.ToString());
        }
    }

    [Fact]
    public void A_driver_that_counts_nothing_is_not_unbound_while_a_process_cannot_be_looked_at()
    {
        var desk = new Desk(new HostBuilder().With(Hosts.Card(1)).WithNvidiaDriver(new()).WithBuiltIn("snd_hda_intel").Loading("nvidia", "nvidia_uvm").Boot());
        Holding(desk.Kernel, "/dev/nvidiactl", "cuda");
        desk.Kernel.StartProcess("big").IsUnreadable = true;
        desk.Refused(Target.Vfio, policy: Policy.Default with { By = FreeBy.Unbind }).Findings.ShouldContain(f => f.Code == "sibling-in-use" && f.What.Contains("counts no users"));
    }
}
