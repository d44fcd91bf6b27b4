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
            && Names((kernel.Read(Sys.Proc / pid.ToString(CultureInfo.InvariantCulture) / "cmdline") ?? "").Split('\0'), $"/qemu-server/{id}.pid")
                ? new(pid, stat.Started)
                : null;
    }

    /// <summary>It is about to come back: Proxmox stops it only to start it anew (qemu-server, PVE/QemuServer.pm:vm_reboot).</summary>
    public static bool Reboots(int vm, IKernel kernel) => kernel.Exists(Folder / $"{vm.ToString(CultureInfo.InvariantCulture)}.reboot");

    // /run may be written as /var/run, which is a link to it.
    static bool Names(string[] words, string pidFile)
    {
        var option = Array.FindIndex(words, word => word is "-pidfile" or "--pidfile");
        return option >= 0 && option + 1 < words.Length && words[option + 1].EndsWith(pidFile, StringComparison.Ordinal);
    }
}
