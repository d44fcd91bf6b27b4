using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Survey;

namespace GpuHandoff.Proxmox;

/// <summary>Whether a VM's end is the one with which its backup in mode stop begins, and that a start follows.</summary>
/// <remarks>
/// The lock alone does not say so: every backup sets it, in every mode and for as long as it lasts, and a QEMU may die meanwhile.
/// Who calls the post-stop says it. vzdump makes that end with <c>qm shutdown VMID --skiplock --keepActive --timeout S</c>
/// (VZDump/QemuServer.pm:stop_vm), and nobody else has the volumes kept active; the post-stop is that command's own, under its
/// lock of the VM (QemuServer.pm:_do_vm_stop). All other ends are another task's, or those of qmeventd's <c>qm cleanup</c>.
/// </remarks>
static class BackupStop
{
    public static bool IsCalling(int vm, IKernel kernel)
    {
        var id = vm.ToString(CultureInfo.InvariantCulture);
        // A hookscript of somebody's own may stand in between, and a worker of Proxmox's, which calls itself "task UPID:…".
        foreach (var pid in Ancestry.Of(kernel))
        {
            var words = (kernel.Read(Sys.Proc / pid.ToString(CultureInfo.InvariantCulture) / "cmdline") ?? "").Split('\0');
            // /usr/bin/perl /usr/sbin/qm cleanup 101 1 1
            var at = Array.FindIndex(words, word => word == "qm" || word.EndsWith("/qm", StringComparison.Ordinal));
            if (at < 0 || words.ElementAtOrDefault(at + 2) != id)
                continue;
            switch (words[at + 1])
            {
                case "shutdown" when words.Contains("--keepActive"):
                    return true;
                case "cleanup":
                    return IsOldWay(id, kernel) && words[(at + 3)..] is ["1", "1", ..];
            }
        }
        return false;
    }

    /// <summary>Whether every post-stop comes from qmeventd, the end of a backup's included.</summary>
    /// <remarks>
    /// qemu-server before 9.1.13, or after its upgrade until the next boot: there is no flag of the VM's, which else lasts until
    /// after post-stop (QemuServer.pm:vm_stop_cleanup). A shutdown is heard by the guest and made by it, which is what the two
    /// numbers say (qmeventd.c:handle_qmp_event); a crash has 0 0, a stop by force 1 0. What stays in doubt is a guest that powers
    /// itself off: qmeventd lets its QEMU live until the backup has been made (handle_qmp_return).
    /// </remarks>
    static bool IsOldWay(string vm, IKernel kernel) => !kernel.Exists(RunningVm.Folder / $"{vm}.cleanup");
}
