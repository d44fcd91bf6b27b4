using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    [LibraryImport(Library, EntryPoint = "fsync", SetLastError = true)]
    public static partial int Sync(int file);
}
