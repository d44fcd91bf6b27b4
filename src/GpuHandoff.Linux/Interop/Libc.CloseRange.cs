using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    /// <summary>CLOSE_RANGE_CLOEXEC (linux/close_range.h): close them in children, not here.</summary>
    public const int OnExec = 4;

    [LibraryImport(Library, EntryPoint = "close_range", SetLastError = true)]
    public static partial int CloseRange(uint first, uint last, int flags);
}
