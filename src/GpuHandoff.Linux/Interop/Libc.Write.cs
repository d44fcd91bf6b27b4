using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    [LibraryImport(Library, EntryPoint = "write", SetLastError = true)]
    public static partial nint Write(int file, ReadOnlySpan<byte> buffer, nint length);
}
