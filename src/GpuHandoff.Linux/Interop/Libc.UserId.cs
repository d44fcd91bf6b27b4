using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    [LibraryImport(Library, EntryPoint = "geteuid")]
    public static partial uint UserId();
}
