using System.Globalization;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Survey;

namespace GpuHandoff.Proxmox;

/// <summary>QEMU of a VM, as Proxmox itself finds it.</summary>
/// <remarks>qemu-server, PVE/QemuServer/Helpers.pm:vm_running_locally.</remarks>
public static class RunningVm
{
    public static SysPath Folder { get; } = new("/run/qemu-server");

    /// <summary>The process that the pidfile names, if its command line names that pidfile; null: the VM does not run.</summary>
    public static QemuProcess? Of(int vm, IKernel kernel)
    {
        var id = vm.ToString(CultureInfo.InvariantCulture);
        return int.TryParse(kernel.Read(Folder / $"{id}.pid")?.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out var pid)
            && ProcessStat.Of(pid, kernel) is { } stat && !stat.HasEnded()
            && Tenants.IsQemuOf(HookErrand.GuestOf(vm), (kernel.Read(Sys.Proc / pid.ToString(CultureInfo.InvariantCulture) / "cmdline") ?? "").Split('\0'))
                ? new(pid, stat.Started)
                : null;
    }

    /// <summary>It is about to come back: Proxmox stops it only to start it anew (qemu-server, PVE/QemuServer.pm:vm_reboot).</summary>
    public static bool Reboots(int vm, IKernel kernel) => kernel.Exists(Folder / $"{vm.ToString(CultureInfo.InvariantCulture)}.reboot");
}
