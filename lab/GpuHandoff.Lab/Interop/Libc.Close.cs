using System.Runtime.InteropServices;

namespace GpuHandoff.Lab.Interop;

static partial class Libc
{
    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    public static partial int Close(int descriptor);
}
