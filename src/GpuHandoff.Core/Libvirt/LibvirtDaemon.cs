using System.Globalization;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Survey;

namespace GpuHandoff.Libvirt;

/// <summary>libvirt's daemon, as the process that has called the hook.</summary>
static class LibvirtDaemon
{
    /// <summary>Both by the names of their main threads: the one daemon for all, and the one for QEMU alone.</summary>
    static readonly string[] _names = ["libvirtd", "virtqemud"];

    /// <summary>
    /// The nearest of our ancestors that is the daemon; null: none is, as where a person makes the hook's call in a shell, whose
    /// life says nothing of a domain's start.
    /// </summary>
    /// <remarks>
    /// It runs the hook as a child of its own (util/virhook.c:virHookCall), or a script that runs us. A name can be chosen, but an
    /// ancestor of ours that runs as root was started by root.
    /// </remarks>
    public static ManagerProcess? Calling(IKernel kernel)
    {
        foreach (var pid in Ancestry.Of(kernel))
        {
            var folder = Sys.Proc / pid.ToString(CultureInfo.InvariantCulture);
            if (_names.Contains(kernel.Read(folder / "comm")) && ProcessFiles.User(kernel.Read(folder / "status") ?? "") == 0
                && ProcessStat.Of(pid, kernel) is { } stat && !stat.HasEnded())
            {
                return new(pid, stat.Started);
            }
        }
        return null;
    }
}
