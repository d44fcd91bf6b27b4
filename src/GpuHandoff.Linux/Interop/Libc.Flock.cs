using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    public const int LockShared = 1;
    public const int LockAlone = 2;
    public const int LockNow = 4;
    public const int Unlock = 8;

    [LibraryImport(Library, EntryPoint = "flock", SetLastError = true)]
    public static partial int Flock(int file, int operation);
}
