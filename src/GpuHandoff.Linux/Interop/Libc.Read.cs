using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    [LibraryImport(Library, EntryPoint = "read", SetLastError = true)]
    public static partial nint Read(int file, Span<byte> buffer, nint length);
}
