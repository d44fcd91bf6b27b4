using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Machines;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;
using static GpuHandoff.Core.Tests.Guests.VmHost;

namespace GpuHandoff.Core.Tests.Guests;

/// <summary>Who has a card that is lent: what the host shows of a VM, and what is only left over of one.</summary>
public class Tenancies
{
    static readonly PciAddress _gpu = PciAddress.TryParse(First, out var gpu) ? gpu : default;

    /// <summary>The card is handed over for VM 101, and nothing of the VM is there yet.</summary>
    static VmHost Lent(Guest? guest = null)
    {
        var host = new VmHost(Hosts.SingleGpu()).With("101", "0000:01:00");
        host.Desk.Turn().Lend(guest ?? Guest("101"), [_gpu], Policy.Default, CancellationToken.None);
        host.Leases.Length.ShouldBe(1, host.Told);
        return host;
    }

    static PciAddress[] Functions => [_gpu, _gpu with { Function = 1 }];

    [Fact]
    public void A_vm_of_which_nothing_is_there_is_gone() =>
        Lent().Loan.ShouldSatisfyAllConditions(
            l => l.Tenancy.ShouldBe(Tenancy.Gone), l => l.Evidence.ShouldBe("its QEMU does not run"), l => l.Lease.Qemu.ShouldBeNull());

    [Fact]
    public void A_vm_runs_whose_pidfile_names_its_qemu_and_the_process_is_noted()
    {
        var host = Lent();
        var qemu = host.Proxmox.Start("101");

        host.Loan.Tenancy.ShouldBe(Tenancy.Running);
        host.Loan.Evidence.ShouldBe($"QEMU runs as process {qemu.Pid}");
        host.Loan.Lease.Qemu.ShouldBe(new QemuProcess(qemu.Pid, qemu.Started));
    }

    [Fact]
    public void A_pidfile_whose_pid_is_somebody_elses_by_now_is_nothing()
    {
        var host = Lent();
        var other = host.Kernel.StartProcess("kvm", "/qemu.slice/1010.scope");
        other.CommandLine = ["/usr/bin/kvm", "-id", "1010", "-pidfile", "/var/run/qemu-server/1010.pid"];
        host.Kernel.Files.Write(ProxmoxHost.PidFile("101"), $"{other.Pid}\n");

        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
    }

    [Fact]
    public void A_pidfile_with_rubbish_or_a_dead_pid_is_nothing()
    {
        var host = Lent();
        foreach (var text in new[] { "", "x", "99999999999999999999", "77777\n", "-1" })
        {
            host.Kernel.Files.Write(ProxmoxHost.PidFile("101"), text);
            host.Loan.Tenancy.ShouldBe(Tenancy.Gone, text);
        }
    }

    [Fact]
    public void A_qemu_that_has_lost_its_command_line_on_its_way_out_still_runs_where_it_is_known()
    {
        var host = Lent();
        var qemu = host.Proxmox.Start("101");
        host.Round();
        host.Leases[0].Qemu.ShouldBe(new QemuProcess(qemu.Pid, qemu.Started), host.Told);

        qemu.CommandLine = [];
        host.Kernel.Files.Remove(ProxmoxHost.PidFile("101"));
        host.Loan.Tenancy.ShouldBe(Tenancy.Running);

        host.Proxmox.Kill("101");
        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
    }

    [Fact]
    public void A_qemu_without_its_pidfile_is_known_by_the_reservation_and_by_the_group_that_it_has_open()
    {
        var host = Lent();
        var qemu = host.Proxmox.Start("101");
        host.Kernel.Files.Remove(ProxmoxHost.PidFile("101"));
        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
        host.Proxmox.Reserve("0000:01:00.0", "102", $"pid:{qemu.Pid}");
        host.Loan.Tenancy.ShouldBe(Tenancy.Gone, "it is another VM's");
        host.Proxmox.Reserve("0000:01:00.0", "101", $"pid:{qemu.Pid}");
        host.Loan.Tenancy.ShouldBe(Tenancy.Running);
        host.Proxmox.Kill("101");

        qemu = host.Proxmox.Start("101", Functions);
        host.Kernel.Files.Remove(ProxmoxHost.PidFile("101"));
        host.Proxmox.Release("101");
        host.Loan.Tenancy.ShouldBe(Tenancy.Running);
        host.Loan.Evidence.ShouldBe($"{qemu.Pid} kvm (/dev/vfio/11) VM 101");
        host.Loan.Lease.Qemu.ShouldBe(new QemuProcess(qemu.Pid, qemu.Started));
    }

    [Fact]
    public void A_reservation_that_runs_by_time_holds_nothing_as_it_outlives_a_start_that_was_killed()
    {
        var host = Lent();
        host.Proxmox.Reserve("0000:01:00.0", "101", $"time:{(host.Kernel.BootedAt + host.Kernel.Uptime).ToUnixTimeSeconds() + 100}");
        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
    }

    [Fact]
    public void A_vm_whose_lock_proxmox_holds_is_in_motion_and_one_that_is_cloned_is_not()
    {
        var host = Lent();
        using (host.Proxmox.Lock("1010"))
        using (host.Proxmox.Lock("101", shared: true))
            host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
        using (host.Proxmox.Lock("101"))
        {
            host.Loan.Tenancy.ShouldBe(Tenancy.InMotion);
            host.Loan.Evidence.ShouldBe("Proxmox is at work on it: process 1717 has /var/lock/qemu-server/lock-101.conf locked");
        }
        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
    }

    [Fact]
    public void A_vm_that_reboots_is_in_motion_until_the_marker_is_too_old_to_be_true()
    {
        var host = Lent();
        host.Proxmox.MarkReboot("101");
        host.Kernel.Pause(TimeSpan.FromSeconds(100));
        host.Loan.Tenancy.ShouldBe(Tenancy.InMotion);
        host.Loan.Evidence.ShouldBe("it reboots: that was asked for 100 s ago");

        host.Kernel.Pause(Tenants.RebootTakes);
        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
    }

    [Theory]
    [InlineData("2038-01-19T03:14:07Z")]
    [InlineData("2038-01-19T03:14:08Z")]
    [InlineData("2106-02-07T06:28:16Z")]
    public void A_host_that_was_booted_after_32_bits_of_seconds_knows_a_reboot_still(string booted)
    {
        var host = Lent();
        host.Kernel.BootedAt = DateTimeOffset.Parse(booted, System.Globalization.CultureInfo.InvariantCulture);
        host.Proxmox.MarkReboot("101");
        host.Kernel.Pause(TimeSpan.FromSeconds(100));
        host.Loan.Evidence.ShouldBe("it reboots: that was asked for 100 s ago");
    }

    [Fact]
    public void A_marker_from_the_future_is_no_reason_to_keep_a_card_for_years()
    {
        var host = Lent();
        host.Proxmox.MarkReboot("101");
        host.Kernel.BootedAt -= TimeSpan.FromDays(400);
        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
    }

    [Fact]
    public void A_card_that_vfio_still_resets_after_its_qemu_has_left_is_in_motion()
    {
        var host = Lent();
        host.Proxmox.Start("101", Functions);
        host.Proxmox.Kill("101", TimeSpan.FromSeconds(8));
        host.Loan.Tenancy.ShouldBe(Tenancy.InMotion);
        host.Loan.Evidence.ShouldBe("vfio-pci has 2 open devices and no process shows one");

        host.Kernel.Pause(TimeSpan.FromSeconds(9));
        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
    }

    [Fact]
    public void A_domain_of_libvirts_is_given_time_to_come_up_and_then_known_by_its_pidfile_and_its_name()
    {
        var host = Lent(new(VmManager.Libvirt, "win,11"));
        host.Loan.Tenancy.ShouldBe(Tenancy.InMotion);
        host.Kernel.Pause(Tenants.LibvirtTakes);
        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);

        var qemu = host.Kernel.StartProcess("qemu-system-x86", @"/machine.slice/machine-qemu\x2d3\x2dother.scope/libvirt/emulator");
        host.Kernel.Files.Write("/run/libvirt/qemu/win,11.pid", $"{qemu.Pid}");
        qemu.CommandLine = ["/usr/bin/qemu-system-x86_64", "-name", "guest=win,,11x,debug-threads=on"];
        host.Loan.Tenancy.ShouldBe(Tenancy.Gone);
        qemu.CommandLine = ["/usr/bin/qemu-system-x86_64", "-name", "guest=win,,11,debug-threads=on"];
        host.Loan.Tenancy.ShouldBe(Tenancy.Running);
    }

    [Theory]
    [InlineData(VmManager.Proxmox, "101", "kvm -id 101", true)]
    [InlineData(VmManager.Proxmox, "101", "kvm -id 1011", false)]
    [InlineData(VmManager.Proxmox, "101", "kvm -pidfile /var/run/qemu-server/101.pid", true)]
    [InlineData(VmManager.Proxmox, "101", "kvm -pidfile /var/run/qemu-server/1101.pid", false)]
    [InlineData(VmManager.Proxmox, "101", "vim -id", false)]
    [InlineData(VmManager.Proxmox, "101", "kvm -name 101", false)]
    [InlineData(VmManager.Libvirt, "win11", "qemu -name guest=win11", true)]
    [InlineData(VmManager.Libvirt, "win11", "qemu -name guest=win11,debug-threads=on", true)]
    [InlineData(VmManager.Libvirt, "win11", "qemu -name guest=win11b", false)]
    [InlineData(VmManager.Libvirt, "win", "qemu -name guest=win,,11", false)]
    [InlineData(VmManager.Libvirt, "win11", "qemu -id win11", false)]
    public void A_command_line_is_that_of_a_vms_qemu(VmManager manager, string id, string line, bool isIt) =>
        Tenants.IsQemuOf(new(manager, id), line.Split(' ')).ShouldBe(isIt);
}
