namespace GpuHandoff.Machines;

/// <summary>A program's file as /proc/PID/exe has it: the kernel's word, where the name (comm) and the command line are the process's own.</summary>
/// <remarks>
/// Which file that is does not say who put it there: a user has copies of programs where he likes. So it counts only together
/// with the account that runs it, or with a cgroup that only root can make.
/// </remarks>
public static class ProgramFile
{
    // fs/d_path.c:d_path, of a file that was replaced by an upgrade while it runs.
    const string Deleted = " (deleted)";

    /// <summary>The path without what the kernel adds; null where there is none.</summary>
    public static string? PathOf(string? exe) =>
        exe is not null && exe.EndsWith(Deleted, StringComparison.Ordinal) ? exe[..^Deleted.Length] : exe;

    /// <summary>The file's name without its folder.</summary>
    public static string? NameOf(string? exe) => PathOf(exe) is { } path ? path[(path.LastIndexOf('/') + 1)..] : null;

    // /usr/bin/qemu-system-x86_64, to which Proxmox's /usr/bin/kvm leads; /usr/libexec/qemu-kvm of Red Hat's.
    public static bool IsQemu(string? exe) =>
        NameOf(exe) is { } name && (name is "kvm" or "qemu-kvm" || name.StartsWith("qemu-system-", StringComparison.Ordinal));
}
