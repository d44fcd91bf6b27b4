using System.Globalization;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Survey;

namespace GpuHandoff.Proxmox;

/// <summary>QEMU of a VM by Proxmox's pidfile.</summary>
/// <remarks>
/// Proxmox itself believes the command line of whichever process has that PID (qemu-server,
/// PVE/QemuServer/Helpers.pm:vm_running_locally); a leftover pidfile's may be any user's by now.
/// </remarks>
public static class RunningVm
{
    public static SysPath Folder { get; } = new("/run/qemu-server");

    /// <summary>The process that the pidfile names, where it is this VM's (<see cref="Tenants.Living"/>); null: the VM does not run.</summary>
    public static QemuProcess? Of(int vm, IKernel kernel) =>
        int.TryParse(kernel.Read(Folder / $"{vm.ToString(CultureInfo.InvariantCulture)}.pid")?.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out var pid)
            ? Tenants.Living(pid, HookErrand.GuestOf(vm), kernel)
            : null;

    /// <summary>It is about to come back: Proxmox stops it only to start it anew (qemu-server, PVE/QemuServer.pm:vm_reboot).</summary>
    public static bool Reboots(int vm, IKernel kernel) => kernel.Exists(Folder / $"{vm.ToString(CultureInfo.InvariantCulture)}.reboot");
}
