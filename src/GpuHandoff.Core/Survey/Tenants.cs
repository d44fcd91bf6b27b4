using System.Globalization;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Proxmox;

namespace GpuHandoff.Survey;

/// <summary>
/// How it stands with the VMs that cards are lent to. Only looked at, never asked: a lock that we tried would be one that
/// the VM's manager does not get, and its QMP socket takes one guest at a time.
/// </summary>
public static class Tenants
{
    // /var/run leads to /run on every host with systemd. /var/lock is as Proxmox names it.
    static readonly SysPath _proxmoxRun = new("/run/qemu-server");
    static readonly SysPath _proxmoxLocks = new("/var/lock/qemu-server");
    static readonly SysPath _libvirtRun = new("/run/libvirt/qemu");

    /// <summary>
    /// How long a reboot that was asked for counts. Proxmox waits 60 s for the guest to shut down where nobody said otherwise,
    /// and another 60 s for the VM's lock before it starts it anew (QemuServer.pm:_do_vm_stop, CLI/qm.pm:cleanup). The marker
    /// of one that never came is dropped only at the VM's next start, and must not keep the card until then. One that takes
    /// longer gets its card back all the same, just not without a detour.
    /// </summary>
    public static TimeSpan RebootTakes { get; } = TimeSpan.FromMinutes(3);

    /// <summary>
    /// How long the end of a running VM for its backup in mode stop counts until its start: between the two vzdump runs the hooks
    /// of its own and prepares the storage (VZDump.pm:exec_backup_task).
    /// </summary>
    public static TimeSpan BackupTakes { get; } = TimeSpan.FromMinutes(5);

    /// <summary>
    /// libvirt has no lock that others could see: prepare/begin comes first, then security labels, networks and the like,
    /// then QEMU with its pidfile, which may take minutes: disks on a slow file server lie between. A start that fails is followed
    /// by release/end. So a domain without a QEMU is starting for as long as the daemon lives that asked for its GPU, and this
    /// is for where that is not known. It counts from the end of the hand-over, which may take minutes; before that the run's lock
    /// on the card keeps everybody else away from it.
    /// </summary>
    public static TimeSpan LibvirtTakes { get; } = TimeSpan.FromSeconds(60);

    /// <summary>All that there is to know: users of the card's IOMMU group, and what <see cref="Glance"/> sees.</summary>
    public static Loan Of(Lease lease, Machine machine, IKernel kernel)
    {
        var lent = machine.Functions().Where(f => f.Address.SharesSlotWith(lease.Gpu) && f.IsOnVfio()).ToList();
        var nodes = lent.SelectMany(f => f.Nodes).ToList();
        var holders = machine.Users.Where(u => nodes.Exists(n => n.Node.IsSameDevice(u.Node))).ToList();
        if (holders is not [])
        {
            // Its scope has helpers, too; who has the group open is QEMU. Anybody else who has it keeps the card as well, but is
            // not written down: he would count until he ends, whether he still has it open or not.
            var found = holders.Select(u => (User: u, Qemu: Living(u.Pid, lease.Guest, kernel))).FirstOrDefault(h => h.Qemu is not null);
            return new(found.Qemu is null ? lease : lease with { Qemu = found.Qemu }, Tenancy.Running, (found.User ?? holders[0]).ToString());
        }
        var loan = Glance(lease, kernel);
        // It has left /proc, and vfio still resets what it had.
        return loan.Tenancy == Tenancy.Gone && lent is not [] && machine.Vfio?.Hidden() is > 0 and var hidden
            ? new(lease, Tenancy.InMotion, $"vfio-pci has {hidden} open devices and no process shows one")
            : loan;
    }

    /// <summary>
    /// What QEMU's process and its manager's files tell, at the price of a few small files. Gone here is a reason to look at
    /// the card's group, too.
    /// </summary>
    public static Loan Glance(Lease lease, IKernel kernel) =>
        Qemu(lease, kernel) is { } qemu
            ? new(lease with { Qemu = qemu }, Tenancy.Running, $"QEMU runs as process {qemu.Pid}")
            : Motion(lease, kernel) is { } why
            ? new(lease, Tenancy.InMotion, why)
            : new(lease, Tenancy.Gone, "its QEMU does not run");

    static QemuProcess? Qemu(Lease lease, IKernel kernel)
    {
        // A process that ends loses its memory first, and with it its command line, then its files; it is a zombie only after
        // that (kernel/exit.c:do_exit). So one that we knew counts until then, whatever it reads as.
        if (lease.Qemu is { } known && ProcessStat.Lives(known.Pid, known.Started, kernel))
            return known;
        return Pids(lease.Guest, kernel).Select(pid => Living(pid, lease.Guest, kernel)).FirstOrDefault(q => q is not null);
    }

    static IEnumerable<int> Pids(Guest guest, IKernel kernel)
    {
        var file = guest.Manager == VmManager.Proxmox ? _proxmoxRun / $"{guest.Id}.pid" : _libvirtRun / $"{guest.Id}.pid";
        if (int.TryParse(kernel.Read(file)?.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out var pid))
            yield return pid;
        if (guest.Manager != VmManager.Proxmox)
            yield break;
        // The pidfile goes with Proxmox's clean-up, whether QEMU has ended by then or not.
        foreach (var reserved in Reservations.Parse(kernel.Read(_proxmoxRun / "pci-id-reservations") ?? "")
            .Where(r => r.Vm.ToString(CultureInfo.InvariantCulture) == guest.Id))
        {
            if (reserved.Pid is { } holder)
                yield return holder;
        }
    }

    /// <summary>The process, where it lives and is this VM's by the word of root; a command line alone is anybody's.</summary>
    /// <remarks>
    /// That is: it is in the scope that Proxmox made for this VM; or it is one of libvirt's VMs by its cgroup, and says by its
    /// command line which one. Or root has written its PID down for this VM, in the pidfile or a reservation. Such a record may be
    /// left over and the PID another's by now, so the process must be root's by its account and QEMU by its program, too, and its
    /// command line say that it is this VM.
    /// </remarks>
    public static QemuProcess? Living(int pid, Guest guest, IKernel kernel)
    {
        if (ProcessStat.Of(pid, kernel) is not { } stat || stat.HasEnded())
            return null;
        var folder = Sys.Proc / pid.ToString(CultureInfo.InvariantCulture);
        var of = Cgroup.Parse(kernel.Read(folder / "cgroup") ?? "");
        return of.IsSurely(guest) || ((IsLibvirts(of, guest) || IsOfRoots(pid, of, guest, folder, kernel))
            && IsQemuOf(guest, kernel.Read(folder / "cmdline")?.Split('\0') ?? []))
            ? new(pid, stat.Started)
            : null;
    }

    // Its QEMUs run as an account of their own. What the scope is called may be another domain's (Belonging.IsSurely).
    static bool IsLibvirts(Belonging of, Guest guest) => guest.Manager == VmManager.Libvirt && of.Manager == VmManager.Libvirt;

    static bool IsOfRoots(int pid, Belonging of, Guest guest, SysPath folder, IKernel kernel)
    {
        // Without cgroups (cgroup_controllers = [] in qemu.conf) they stay with the daemon.
        var isDaemons = guest.Manager == VmManager.Libvirt && of.Unit is "libvirtd.service" or "virtqemud.service";
        // Another VM's QEMU is root's and QEMU as well, and its command line what its memory says.
        return of.Vm is null && Pids(guest, kernel).Contains(pid) && (isDaemons || ProcessFiles.UserOf(pid, kernel) == 0)
            && ProgramFile.IsQemu(kernel.Link(folder / "exe"));
    }

    // /usr/bin/kvm -id 101 -name windows,debug-threads=on … -pidfile /var/run/qemu-server/101.pid -daemonize …
    // /usr/bin/qemu-system-x86_64 -name guest=win11,debug-threads=on …
    public static bool IsQemuOf(Guest guest, ReadOnlySpan<string> arguments)
    {
        // QEMU doubles a comma that is part of a value (util/qemu-option.c:get_opt_value).
        var name = $"guest={guest.Id.Replace(",", ",,", StringComparison.Ordinal)}";
        for (var i = 0; i + 1 < arguments.Length; i++)
        {
            var value = arguments[i + 1];
            switch (guest.Manager, arguments[i])
            {
                case (VmManager.Proxmox, "-id") when value == guest.Id:
                case (VmManager.Proxmox, "-pidfile") when value.EndsWith($"/qemu-server/{guest.Id}.pid", StringComparison.Ordinal):
                case (VmManager.Libvirt, "-name") when value == name
                    || (value.StartsWith($"{name},", StringComparison.Ordinal) && !value.StartsWith($"{name},,", StringComparison.Ordinal)):
                    return true;
            }
        }
        return false;
    }

    /// <summary>Why its manager seems to be at work on it; null: it does not.</summary>
    static string? Motion(Lease lease, IKernel kernel)
    {
        var guest = lease.Guest;
        if (guest.Manager == VmManager.Libvirt)
        {
            var age = kernel.Uptime - (lease.Ready ?? lease.Since);
            if (lease is { Qemu: null, StartedBy: { } daemon } && ProcessStat.Lives(daemon.Pid, daemon.Started, kernel))
                return $"it was lent {Seconds(age)} ago, and libvirt, process {daemon.Pid}, may still be starting it";
            return lease.Qemu is null && age < LibvirtTakes ? $"it was lent {Seconds(age)} ago and may be starting" : null;
        }
        // Held alone while the VM starts, stops or is cleaned up after, hooks included, and dropped by the kernel with its holder.
        // A reservation by time says less: it outlives a start that was killed by minutes.
        var path = _proxmoxLocks / $"lock-{guest.Id}.conf";
        if (HeldLocks.OfRoot(path, kernel).FirstOrDefault(held => held.Alone) is { } held)
            return $"Proxmox is at work on it: process {held.Pid} has {path} locked";
        // Its post-stop has written that down.
        if (lease.ExpectedBack is { } back && kernel.Uptime < back.Until)
            return $"{back.Why}, and has {Seconds(back.Until - kernel.Uptime)} left for that";
        // Between the end of its QEMU and that.
        if (kernel.IdentityOf(_proxmoxRun / $"{guest.Id}.reboot") is { } marker && WallClock.Now(kernel) is { } now)
        {
            // The clock may have been set in between, in either direction.
            var age = now - marker.Modified;
            if (age.Duration() < RebootTakes)
                return $"it reboots: that was asked for {Seconds(age)} ago";
        }
        return null;
    }

    static string Seconds(TimeSpan time) => $"{Math.Max(0, time.TotalSeconds):0} s";
}
