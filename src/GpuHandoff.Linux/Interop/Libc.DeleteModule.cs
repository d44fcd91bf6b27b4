using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    /// <summary>delete_module(2). The C library exports it without a header of its own.</summary>
    [LibraryImport(Library, EntryPoint = "delete_module", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int DeleteModule(string name, uint flags);
}
