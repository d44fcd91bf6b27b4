using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    /// <summary>KCMP_FILE of include/uapi/linux/kcmp.h.</summary>
    public const int OpenFiles = 0;

    // glibc has no function for it; the number is that of x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
    const nint CompareCall = 312;

    /// <summary>kcmp(2): 0 where both are the same open file, 1 or 2 (an order) where they are not, -1 where the kernel does not tell.</summary>
    public static nint Compare(int process, int other, int kind, nuint file, nuint otherFile) => Call(CompareCall, process, other, kind, file, otherFile);

    [LibraryImport(Library, EntryPoint = "syscall")]
    private static partial nint Call(nint number, nint process, nint other, nint kind, nuint file, nuint otherFile);
}
