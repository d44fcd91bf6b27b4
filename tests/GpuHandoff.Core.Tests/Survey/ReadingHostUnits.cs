using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Survey;

/// <summary>What containers' configs, systemd and MPS's processes say.</summary>
public class ReadingHostUnits
{
    static RunningContainer Parse(string text) => LxcConfig.Parse(new(ContainerKind.Lxc, "107"), text);

    [Theory]
    [InlineData("dev0: /dev/nvidia0", "/dev/nvidia0")]
    [InlineData("dev12: /dev/nvidia0,mode=0666,uid=0", "/dev/nvidia0")]
    [InlineData("dev0: path=/dev/dri/renderD128,gid=104", "/dev/dri/renderD128")]
    [InlineData("lxc.mount.entry: /dev/nvidia0 dev/nvidia0 none bind,optional,create=file", "/dev/nvidia0")]
    [InlineData("lxc.mount.entry = /dev/dri/ dev/dri none bind,optional,create=dir", "/dev/dri")]
    [InlineData("lxc.mount.entry=/dev/nvidia0\tdev/nvidia0 none bind", "/dev/nvidia0")]
    public void A_node_is_given_by_devN_or_by_a_bind(string line, string node) => Parse($"arch: amd64\n{line}\n").Nodes.ShouldBe([node]);

    [Theory]
    [InlineData("#dev0: /dev/nvidia0")]
    [InlineData("dev: /dev/nvidia0")]
    [InlineData("devX: /dev/nvidia0")]
    [InlineData("dev0: nvidia0")]
    [InlineData("lxc.mount.entry: /tank tank none bind")]
    [InlineData("mp0: /dev/nvidia0,mp=/x")]
    [InlineData("[before]\ndev0: /dev/nvidia0")]
    [InlineData("[pve:pending]\ndev0: /dev/nvidia0")]
    public void What_only_looks_like_a_node_is_none(string text) => Parse(text).Nodes.ShouldBeEmpty();

    [Theory]
    [InlineData("lxc.cgroup2.devices.allow: c 195:* rwm", 195u, null)]
    [InlineData("lxc.cgroup.devices.allow = c 226:0 rw", 226u, 0u)]
    [InlineData("lxc.cgroup2.devices.allow:c 510:* rwm", 510u, null)]
    public void A_rule_tells_the_numbers_that_may_be_opened(string line, uint major, uint? minor) =>
        Parse(line).Rules.ShouldBe([new DeviceRule(major, minor)]);

    [Theory]
    [InlineData("lxc.cgroup2.devices.allow: a")]
    [InlineData("lxc.cgroup2.devices.allow: b 8:* rwm")]
    [InlineData("lxc.cgroup2.devices.deny: c 195:* rwm")]
    [InlineData("lxc.cgroup2.devices.allow: c *:* rwm")]
    public void A_rule_for_everything_or_another_kind_names_no_card(string line) => Parse(line).Rules.ShouldBeEmpty();

    [Theory]
    [InlineData("dev0: /dev/nvidia0", true, false, false)]
    [InlineData("dev0: /dev/nvidia1", false, true, true)]
    [InlineData("dev0: /dev/nvidia1\ndev1: /dev/nvidiactl\nlxc.cgroup2.devices.allow: c 195:* rwm", false, true, true)]
    [InlineData("dev0: /dev/nvidiactl", true, true, true)]
    [InlineData("dev0: /dev/nvidia-uvm", true, true, true)]
    [InlineData("lxc.cgroup2.devices.allow: c 195:* rwm", true, true, true)]
    [InlineData("lxc.cgroup2.devices.allow: c 195:1 rwm", false, true, false)]
    [InlineData("lxc.cgroup2.devices.allow: c 226:* rwm", true, true, true)]
    [InlineData("dev0: /dev/dri/card1", false, true, false)]
    [InlineData("dev0: /dev/dri/renderD128", true, false, false)]
    [InlineData("lxc.mount.entry: /dev/dri dev/dri none bind", true, true, true)]
    [InlineData("lxc.mount.entry: /dev/dri/by-path/pci-0000:02:00.0-card x none bind", false, true, false)]
    [InlineData("dev0: /dev/ttyUSB0", false, false, false)]
    public void Which_card_a_container_was_given_is_told_by_the_nodes_that_are_a_cards_own(string config, bool first, bool second, bool firstWithTheStack)
    {
        var machine = Surveyor.Survey(Hosts.TwoIdenticalGpus(new("580.126.20")), [], target: null);
        var container = Parse(config);
        container.Has(machine.Gpus[0], machine, wholeStack: false).ShouldBe(first);
        container.Has(machine.Gpus[1], machine, wholeStack: false).ShouldBe(second);
        container.Has(machine.Gpus[0], machine, wholeStack: true).ShouldBe(firstWithTheStack || first);
    }

    [Theory]
    // The processor's graphics for Jellyfin, as the guides have it: the folder, and rules for card0 and renderD128.
    [InlineData("lxc.mount.entry: /dev/dri dev/dri none bind\nlxc.cgroup2.devices.allow: c 226:0 rwm\nlxc.cgroup2.devices.allow: c 226:128 rwm", true, false, false)]
    [InlineData("dev0: /dev/dri/card0\ndev1: /dev/dri/renderD128", true, false, false)]
    [InlineData("lxc.cgroup2.devices.allow: c 226:* rwm\nlxc.mount.entry: /dev/dri/by-path/pci-0000:00:02.0-render x none bind", true, false, false)]
    [InlineData("lxc.mount.entry: /dev/dri dev/dri none bind\nlxc.cgroup2.devices.allow: c 226:1 rwm", false, true, true)]
    [InlineData("lxc.cgroup2.devices.allow: c 226:* rwm", true, true, true)]
    [InlineData("dev0: /dev/dri/renderD128\ndev1: /dev/nvidiactl", true, true, true)]
    [InlineData("dev0: /dev/dri/renderD128\ndev1: /dev/nvidia0", true, true, true)]
    public void A_container_on_the_processors_own_graphics_does_not_count_as_one_on_the_card(string config, bool intel, bool nvidia, bool nvidiaWithTheStack)
    {
        var machine = Surveyor.Survey(Hosts.WithIgpu(new() { Modeset = true }), [], target: null);
        var container = Parse(config);
        container.Has(machine.Gpus[0], machine, wholeStack: false).ShouldBe(intel);
        container.Has(machine.Gpus[1], machine, wholeStack: false).ShouldBe(nvidia);
        container.Has(machine.Gpus[1], machine, wholeStack: true).ShouldBe(nvidiaWithTheStack);
    }

    [Fact]
    public void Rules_and_folders_of_drm_do_not_mean_a_card_that_has_no_drm_node()
    {
        var machine = Surveyor.Survey(Hosts.WithIgpu(), [], target: null);
        machine = machine with
        {
            Gpus = [.. machine.Gpus.Select(g => !g.IsNvidia() ? g : g with { Functions = [.. g.Functions.Select(f => f with { Nodes = [] })] })],
        };
        foreach (var config in (string[])["lxc.cgroup2.devices.allow: c 226:* rwm", "lxc.mount.entry: /dev/dri dev/dri none bind"])
            Parse(config).Has(machine.Gpus[1], machine, wholeStack: true).ShouldBeFalse(config);
    }

    [Fact]
    public void A_unit_that_hangs_on_a_bound_one_is_bound_too_and_one_that_is_down_is_not()
    {
        var kernel = Hosts.HostTargets();
        var web = kernel.AddBoundUnit(kernel.Unit("ollama.service"), "open-webui.service", "open-webui");
        kernel.StartUnit(web);
        var target = Surveyor.Survey(kernel, [], Target.Vfio).HostTargets.ShouldHaveSingleItem();
        target.IsActive.ShouldBeTrue();
        target.Bound.ShouldBe(["ollama.service", "open-webui.service"]);
    }

    [Fact]
    public void Servers_of_mps_are_told_from_their_daemon_by_the_command_line()
    {
        var kernel = Hosts.Mps();
        var mps = Surveyor.Survey(kernel, [], Target.Vfio).Mps.ShouldHaveSingleItem();
        mps.Daemon.ShouldBe(new("/run/mps", 997, 997, "CUDA_MPS_PIPE_DIRECTORY=/run/mps"));
        mps.Servers.ShouldBe([kernel.RunningProcesses.Single(p => p.CommandLine[0].EndsWith("server")).Pid]);
    }

    [Fact]
    public void A_daemon_of_mps_that_ends_as_it_is_looked_at_does_not_pass_for_roots()
    {
        var kernel = Hosts.Mps();
        kernel.RunningProcesses.Single(p => p.CommandLine[0].EndsWith("control")).HasNoStatus = true;
        Surveyor.Survey(kernel, [], Target.Vfio).Mps.ShouldBeEmpty();
    }

    [Fact]
    public void Mps_of_a_container_or_of_other_namespaces_is_not_the_hosts_though_its_pipes_are_called_the_same()
    {
        var kernel = Hosts.TwoGpusMps();
        kernel.StartMpsIn("/lxc/107/ns/mps.scope", isApart: true, "/dev/nvidiactl", "/dev/nvidia1");
        kernel.StartMpsIn("/system.slice/private-tmp.service", isApart: true, "/dev/nvidiactl", "/dev/nvidia1");
        Surveyor.Survey(kernel, [], Target.Vfio).Mps.ShouldHaveSingleItem().Servers.ShouldHaveSingleItem();
    }

    [Theory]
    [InlineData("CUDA_MPS_PIPE_DIRECTORY=/a\0PATH=/x\0CUDA_VISIBLE_DEVICES=0,1\0", "CUDA_MPS_PIPE_DIRECTORY=/a\nCUDA_VISIBLE_DEVICES=0,1")]
    [InlineData("CUDA_MPS_X=a\nb\0CUDA_MPS_y=1\0LD_PRELOAD=/evil.so\0CUDA_MPS_LOG_DIRECTORY=/var/log/mps\0", "CUDA_MPS_LOG_DIRECTORY=/var/log/mps")]
    [InlineData("", "")]
    public void Of_an_environment_only_what_concerns_mps_is_taken(string text, string taken) => MpsProcesses.Environment(text).ShouldBe(taken);

    [Fact]
    public void A_machine_without_systemd_has_no_targets_and_no_display_manager()
    {
        var kernel = Hosts.DisplayManager();
        kernel.HasHostTarget = true;
        kernel.Forget(Programs.Systemctl);
        var machine = Surveyor.Survey(kernel, [], Target.Vfio);
        machine.HostTargets.ShouldBeEmpty();
        machine.SystemdIsSilent.ShouldBeTrue();
        machine.DisplayManager.ShouldBeNull();
    }
}
