using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    [LibraryImport(Library, EntryPoint = "close")]
    public static partial int Close(int file);
}
