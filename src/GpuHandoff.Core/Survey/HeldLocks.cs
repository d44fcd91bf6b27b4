using System.Globalization;
using GpuHandoff.Kernel;

namespace GpuHandoff.Survey;

/// <summary>A lock that a process has on a file.</summary>
/// <param name="Alone">Nobody else has one together with it.</param>
public sealed record HeldLock(int Pid, bool Alone);

/// <summary>Who has a file locked, found without trying the lock: whoever is about to take it is not disturbed.</summary>
public static class HeldLocks
{
    // 1: FLOCK  ADVISORY  WRITE 4211 00:19:1234 0 EOF
    // 1: -> FLOCK  ADVISORY  WRITE 4212 00:19:1234 0 EOF       one that waits for it
    /// <summary>The flocks on a file.</summary>
    /// <remarks>fs/locks.c:lock_get_status: the device's numbers in hexadecimal, the inode in decimal.</remarks>
    public static IReadOnlyList<HeldLock> On(SysPath path, IKernel kernel)
    {
        if (kernel.IdentityOf(path) is not { } identity || kernel.Read(Sys.Proc / "locks") is not { } locks)
            return [];
        var file = $"{identity.Major:x2}:{identity.Minor:x2}:{identity.Inode}";
        return
        [
            .. (from line in locks.Split('\n')
                let words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries)
                where words is [_, "FLOCK", _, _, _, ..] && words[5] == file
                where int.TryParse(words[4], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out _)
                select new HeldLock(int.Parse(words[4], CultureInfo.InvariantCulture), words[3] == "WRITE")).Distinct(),
        ];
    }

    /// <summary>Those that root has. To lock a file it is enough to read it (fs/locks.c:flock), and anybody may read Proxmox's lock files.</summary>
    public static IReadOnlyList<HeldLock> OfRoot(SysPath path, IKernel kernel) =>
        [.. On(path, kernel).Where(held => ProcessFiles.UserOf(held.Pid, kernel) == 0)];
}
