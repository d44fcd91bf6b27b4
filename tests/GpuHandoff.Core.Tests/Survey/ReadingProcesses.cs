using FsCheck.Xunit;
using GpuHandoff.Guests;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Survey;

public class ReadingProcesses
{
    const string Id = "4e8b1c9d2f7a4e8b1c9d2f7a4e8b1c9d2f7a4e8b1c9d2f7a4e8b1c9d2f7a1234";

    [Theory]
    [InlineData("/system.slice/ollama.service", "ollama.service")]
    [InlineData(@"/system.slice/system-jupyter.slice/jupyter@a\x2db.service", @"jupyter@a\x2db.service")]
    [InlineData("/system.slice/run-r3f9.scope", "run-r3f9.scope")]
    [InlineData("/system.slice/ollama.service (deleted)", "ollama.service")]
    [InlineData("/system.slice/_bind.service", "bind.service")]
    [InlineData("/system.slice/app.service/libpod-payload-4e8b", "app.service")]
    [InlineData("/machine.slice/systemd-nspawn@box.service/payload/system.slice/ollama.service", "systemd-nspawn@box.service")]
    [InlineData("/user.slice/user-1000.slice/session-2.scope", null)]
    [InlineData("/user.slice/user-1000.slice/session-c1.scope", null)]
    [InlineData("/user.slice/user-1000.slice/user@1000.service/app.slice/ollama.service", null)]
    [InlineData("/user.slice/user-1000.slice/user@1000.service/init.scope", null)]
    [InlineData("/init.scope", null)]
    [InlineData("/", null)]
    [InlineData("/lxc.monitor/107", null)]
    // A name that only root's managers give counts at root's own place, and else for nothing.
    [InlineData("/user.slice/user-1000.slice/user@1000.service/qemu.slice/101.scope", null)]
    [InlineData(@"/user.slice/user-1000.slice/user@1000.service/machine-qemu\x2d3\x2dwin11.scope", null)]
    [InlineData("/user.slice/user-1000.slice/user@1000.service/system.slice/ollama.service", null)]
    [InlineData("/system.slice/app.service/lxc.payload.201", "app.service")]
    [InlineData("/system.slice/app.service/lxc/201/ns", "app.service")]
    [InlineData("/system.slice/app.service/docker-" + Id + ".scope", "app.service")]
    [InlineData("/system.slice/app.service/qemu.slice/101.scope", "app.service")]
    [InlineData(@"/system.slice/app.service/machine-qemu\x2d3\x2dwin11.scope", "app.service")]
    [InlineData("/system.slice/app.service/system.slice/ollama.service", "app.service")]
    [InlineData("/system.slice/lxc.payload.201/x.service", null)]
    [InlineData("/system.slice/qemu.slice/101.scope", "101.scope")]
    [InlineData("/system.slice/docker/" + Id, null)]
    [InlineData("/foo/lxc/201/x.service", null)]
    public void The_unit_is_the_outermost_that_systemctl_could_stop(string path, string? unit) =>
        (Cgroup.Parse($"0::{path}") with { Session = null }).ShouldBe(new Belonging(Unit: unit));

    [Theory]
    [InlineData("/lxc/107/ns/system.slice/jupyter.service", ContainerKind.Lxc, "107")]
    [InlineData("/lxc/107/ns/system.slice/docker-" + Id + ".scope", ContainerKind.Lxc, "107")]
    [InlineData("/lxc.payload.web", ContainerKind.Lxc, "web")]
    [InlineData("/lxc.payload/web/init.scope", ContainerKind.Lxc, "web")]
    [InlineData("/lxc.payload.web/lxc.payload.201/init.scope", ContainerKind.Lxc, "web")]
    [InlineData("/user.slice/user-0.slice/session-3.scope/lxc.payload.web", ContainerKind.Lxc, "web")]
    [InlineData("/gpu.slice/gpu-jobs.slice/docker-" + Id + ".scope", ContainerKind.Docker, "4e8b1c9d2f7a")]
    [InlineData("/libpod_parent/libpod-" + Id, ContainerKind.Podman, "4e8b1c9d2f7a")]
    [InlineData("/libpod_parent/" + Id + "/libpod-" + Id, ContainerKind.Podman, "4e8b1c9d2f7a")]
    [InlineData("/system.slice/docker-" + Id + ".scope", ContainerKind.Docker, "4e8b1c9d2f7a")]
    [InlineData("/docker/" + Id, ContainerKind.Docker, "4e8b1c9d2f7a")]
    [InlineData("/machine.slice/libpod-" + Id + ".scope/container", ContainerKind.Podman, "4e8b1c9d2f7a")]
    [InlineData("/user.slice/user-0.slice/user@0.service/user.slice/libpod-" + Id + ".scope", ContainerKind.Podman, "4e8b1c9d2f7a")]
    public void A_container_is_named_as_its_manager_names_it(string path, ContainerKind kind, string id) =>
        Cgroup.Parse($"0::{path}").ShouldBe(new Belonging(Container: new(kind, id)));

    [Theory]
    [InlineData("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + Id + ".scope", ContainerKind.Podman)]
    [InlineData("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + Id + ".scope", ContainerKind.Docker)]
    [InlineData("/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_1.slice/libpod-" + Id + ".scope/container", ContainerKind.Podman)]
    public void A_container_below_a_users_slice_is_that_users_own(string path, ContainerKind kind) =>
        Cgroup.Parse($"0::{path}").ShouldBe(
            new Belonging(Container: new(kind, "4e8b1c9d2f7a")) { Rootless = 1000, Session = "user-1000.slice/user@1000.service" });

    [Theory]
    [InlineData("session-3.scope/lxc.payload.201")]
    [InlineData("user@1000.service/lxc.payload.201/system.slice/ollama.service")]
    [InlineData("user@1000.service/app.slice/lxc/201/ns")]
    public void A_container_of_lxc_below_a_users_slice_is_never_roots_of_that_number(string path)
    {
        var belonging = Cgroup.Parse($"0::/user.slice/user-1000.slice/{path}");
        belonging.RootsContainer().ShouldBeNull();
        belonging.ShouldBe(new Belonging(Container: new(ContainerKind.Lxc, "201")) { Rootless = 1000, Session = $"user-1000.slice/{path.Split('/')[0]}" });
    }

    [Theory]
    [InlineData("/qemu.slice/101.scope", "101", VmManager.Proxmox)]
    [InlineData(@"/machine.slice/machine-production.slice/machine-qemu\x2d3\x2dwin11.scope/libvirt/vcpu0", "win11", VmManager.Libvirt)]
    [InlineData("/machine/qemu-3-win11.libvirt-qemu/emulator", "win11", VmManager.Libvirt)]
    [InlineData(@"/machine.slice/machine-qemu\x2d3\x2dwin\x2d11.scope/libvirt/emulator", "win-11", VmManager.Libvirt)]
    [InlineData(@"/machine.slice/machine-qemu\x2d3\x2d101.scope/libvirt/emulator", "101", VmManager.Libvirt)]
    public void A_vm_is_named_by_number_or_name(string path, string vm, VmManager manager)
    {
        var belonging = Cgroup.Parse($"0::{path}");
        belonging.ShouldBe(new Belonging(Vm: vm) { Manager = manager });
        belonging.IsSurely(new(VmManager.Proxmox, vm)).ShouldBe(manager == VmManager.Proxmox);
        belonging.IsSurely(new(VmManager.Libvirt, vm)).ShouldBeFalse("systemd may have made that name of another");
    }

    [Theory]
    [InlineData("12:devices:/lxc/107\n1:name=systemd:/lxc/107/system.slice/ollama.service\n0::/", "107")]
    [InlineData("9:memory:/lxc/107\n3:cpu:/", "107")]
    public void The_first_version_of_cgroups_tells_the_same(string text, string id) =>
        Cgroup.Parse(text).ShouldBe(new Belonging(Container: new(ContainerKind.Lxc, id)));

    [Fact]
    public void Where_both_versions_are_in_use_the_one_that_knows_more_counts() =>
        Cgroup.Parse("5:devices:/system.slice\n1:name=systemd:/system.slice/ollama.service\n0::/").Unit.ShouldBe("ollama.service");

    [Theory]
    [InlineData("7f1c8a000000-7f1c8a021000 rw-s 00000000 00:05 437                        /dev/nvidia0", "7f1c8a000000-7f1c8a021000", "/dev/nvidia0")]
    [InlineData("00400000-00401000 r-xp 00000000 fe:00 1835029                            /opt/my app", "400000-401000", "/opt/my app")]
    [InlineData("7f1c8a000000-7f1c8a021000 rw-s 00000000 00:05 437", "7f1c8a000000-7f1c8a021000", "")]
    public void A_mapped_file_is_read_with_the_name_that_map_files_has_for_it(string line, string range, string path)
    {
        MappedFile.TryParse(line, out var mapped).ShouldBeTrue();
        mapped.Range().ShouldBe(range);
        mapped.Path.ToString().ShouldBe(path);
    }

    [Theory]
    [InlineData("7ffd5c1e3000-7ffd5c204000 rw-p 00000000 00:00 0                          [stack]")]
    [InlineData("7ffd5c1e3000-7ffd5c204000 rw-p 00000000 00:00 0")]
    [InlineData("")]
    [InlineData("- - - - -")]
    public void Memory_without_a_file_is_left_out(string line) => MappedFile.TryParse(line, out _).ShouldBeFalse();

    [Fact]
    public void The_start_is_found_whatever_the_process_calls_itself() =>
        ProcessStat.Parse("4211 (a) S 1 (b) R 1 4211 4211 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 81234 9 9")!.Started.ShouldBe(81234ul);

    [Fact]
    public void A_user_is_read_and_named_by_the_hosts_accounts()
    {
        ProcessFiles.User("Name:\tollama\nUid:\t997\t997\t997\t997\nGid:\t986").ShouldBe(997u);
        const string accounts = "root:x:0:0:root:/root:/bin/bash\nollama:x:997:986::/usr/share/ollama:/bin/false";
        ProcessFiles.NameOf(997, accounts).ShouldBe("ollama");
        ProcessFiles.NameOf(100000, accounts).ShouldBeNull();
    }

    [Theory]
    [InlineData("python3", "python3\0-u\0/srv/train.py\0--fast\0", "train.py")]
    [InlineData("python3.12", "/usr/bin/python3.12\0-m\0vllm.server\0", "vllm.server")]
    [InlineData("java", "java\0-Xmx4g\0-jar\0/opt/server.jar\0", "server.jar")]
    [InlineData("bash", "bash\0-c\0sleep 5\0", null)]
    [InlineData("ollama", "/usr/bin/ollama\0serve\0", null)]
    [InlineData("shotwell", "shotwell\0/home/a/b.jpg\0", null)]
    [InlineData("python3", "", null)]
    public void An_interpreter_is_told_with_what_it_runs(string command, string line, string? script) =>
        ProcessFiles.Script(command, line).ShouldBe(script);

    [Fact]
    public void A_name_made_for_a_terminal_is_disarmed() => ProcessFiles.Plain("a\u001b[2Jb\n").ShouldBe("a?[2Jb?");

    [Property]
    public void No_text_breaks_a_parser(string? text)
    {
        text ??= "";
        _ = Cgroup.Parse(text);
        _ = Cgroup.Parse($"0::/{text}");
        _ = MappedFile.TryParse(text, out _);
        _ = ProcessStat.Parse(text);
        _ = ProcessFiles.User(text);
        _ = ProcessFiles.NameOf(0, text);
        _ = ProcessFiles.Script("python3", text);
        _ = ProcessFiles.Plain(text);
    }
}
