using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Guests;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;
using static GpuHandoff.Core.Tests.Guests.VmHost;

namespace GpuHandoff.Core.Tests.Guests;

/// <summary>No unprivileged process is taken for a VM's QEMU, or keeps a lent card from coming home, by what it calls itself.</summary>
public class ImpostorsOfVms
{
    public static TheoryData<string> Shapes => [.. Impostor.All.Select(i => i.As)];

    static VmHost Running()
    {
        var host = new VmHost(Hosts.SingleGpu()).With("101", "0000:01:00");
        host.Qm.Start("101").ShouldBeNull(host.Told);
        return host;
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void The_pid_that_a_dead_vms_pidfile_and_reservation_name_keeps_no_card_when_an_impostor_has_it(string shape)
    {
        var host = Running();
        var pid = host.Proxmox.Qemu("101").ShouldNotBeNull().Pid;
        host.Proxmox.Kill("101");
        host.Qm.LoseCleanup("101");
        host.Kernel.Files.Read(ProxmoxHost.PidFile("101")).ShouldBe($"{pid}\n", "it is left over");
        host.Proxmox.Reserve("0000:01:00.0", "101", $"pid:{pid}");
        host.Kernel.Pause(TimeSpan.FromSeconds(1));
        Impostor.Of(shape).Start(host.Kernel, pid);

        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
        GpuHandoff.Proxmox.RunningVm.Of(101, host.Kernel).ShouldBeNull();
        host.ShouldComeHome();
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Who_has_the_group_open_without_being_its_vm_is_never_written_down_and_the_card_comes_home_when_he_closes_it(string shape)
    {
        var host = Running();
        host.Proxmox.Kill("101");
        host.Qm.LoseCleanup("101");
        var impostor = Impostor.Of(shape).StartWithGroup(host.Kernel, [.. host.Desk.Survey().Gpus[0].Functions.Select(f => f.Address)]);

        host.Round();

        host.Loan.Tenancy.ShouldBe(Tenancy.Running, "it holds the card");
        var was = host.Leases.ShouldHaveSingleItem().Qemu.ShouldNotBeNull();
        host.Loan.Lease.Qemu.ShouldBe(was, "that of the VM which has ended");
        foreach (var file in impostor.Open.ToList())
            file.Dispose();
        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
        host.ShouldComeHome();
    }

    [Fact]
    public void A_lock_that_a_user_takes_on_a_vms_lock_file_keeps_no_card()
    {
        var host = Running();
        var impostor = Impostor.Of("a VM by name").Start(host.Kernel);
        using var locked = host.Proxmox.Lock("101", pid: impostor.Pid);
        host.Proxmox.Kill("101");
        host.Qm.LoseCleanup("101");

        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
        host.ShouldComeHome();
    }

    [Theory]
    [InlineData("/qemu.slice/102.scope")]
    [InlineData(@"/machine.slice/machine-qemu\x2d3\x2d101.scope/libvirt/emulator")]
    public void Another_vms_qemu_that_calls_itself_like_this_one_is_not_it(string cgroup)
    {
        var host = Running();
        var pid = host.Proxmox.Qemu("101").ShouldNotBeNull().Pid;
        host.Proxmox.Kill("101");
        host.Qm.LoseCleanup("101");
        host.Kernel.Pause(TimeSpan.FromSeconds(1));
        var other = host.Kernel.StartProcess("kvm", cgroup, pid);
        other.CommandLine = ["/usr/bin/kvm", "-id", "101", "-pidfile", "/var/run/qemu-server/101.pid"];

        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
        host.ShouldComeHome();
    }

    [Theory]
    [InlineData(0u, "/usr/bin/qemu-system-x86_64", true)]
    [InlineData(0u, "/usr/bin/qemu-system-x86_64 (deleted)", true)]
    [InlineData(0u, "/usr/bin/sudo", false)]
    [InlineData(0u, null, false)]
    [InlineData(1000u, "/usr/bin/qemu-system-x86_64", false)]
    public void Outside_of_its_scope_a_qemu_is_known_by_the_pidfile_with_its_account_and_its_program(uint user, string? exe, bool isIt)
    {
        var host = new VmHost(Hosts.SingleGpu()).With("101", "0000:01:00");
        var qemu = host.Kernel.StartProcess("kvm", "/user.slice/user-1000.slice/session-2.scope");
        (qemu.User, qemu.Exe, qemu.CommandLine) = (user, exe, ["/usr/bin/kvm", "-id", "101"]);
        Tenants.Living(qemu.Pid, Guest("101"), host.Kernel).ShouldBeNull("a command line alone is anybody's");

        host.Kernel.Files.Write(ProxmoxHost.PidFile("101"), $"{qemu.Pid}\n");

        (Tenants.Living(qemu.Pid, Guest("101"), host.Kernel) is not null).ShouldBe(isIt);
        Tenants.Living(qemu.Pid, Guest("102"), host.Kernel).ShouldBeNull();
    }

    [Theory]
    [InlineData(@"/machine.slice/machine-qemu\x2d3\x2dwin11.scope/libvirt/emulator", 64055u, true)]
    [InlineData("/machine/qemu-3-win11.libvirt-qemu/emulator", 64055u, true)]
    [InlineData("/system.slice/libvirtd.service", 64055u, true)]
    [InlineData("/system.slice/cron.service", 64055u, false)]
    [InlineData("/user.slice/user-1000.slice/session-2.scope", 1000u, false)]
    [InlineData(@"/user.slice/user-1000.slice/user@1000.service/machine.slice/machine-qemu\x2d3\x2dwin11.scope", 1000u, false)]
    [InlineData("/user.slice/user-1000.slice/session-2.scope", 0u, true)]
    public void A_domains_qemu_is_known_by_a_cgroup_that_root_made_or_by_roots_account(string cgroup, uint user, bool isIt)
    {
        var host = new VmHost(Hosts.SingleGpu());
        var guest = new Guest(VmManager.Libvirt, "win11");
        var qemu = host.Kernel.StartProcess("qemu-system-x86", cgroup);
        (qemu.User, qemu.CommandLine) = (user, ["/usr/bin/qemu-system-x86_64", "-name", "guest=win11,debug-threads=on"]);
        host.Kernel.Files.Write("/run/libvirt/qemu/win11.pid", $"{qemu.Pid}");
        (Tenants.Living(qemu.Pid, guest, host.Kernel) is not null).ShouldBe(isIt);

        qemu.CommandLine = ["/usr/bin/qemu-system-x86_64", "-name", "guest=other"];
        Tenants.Living(qemu.Pid, guest, host.Kernel).ShouldBeNull();
    }
}
