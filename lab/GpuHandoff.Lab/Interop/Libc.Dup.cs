using System.Runtime.InteropServices;

namespace GpuHandoff.Lab.Interop;

static partial class Libc
{
    /// <summary>dup(2). The copy has no close-on-exec flag, whatever the original has: the way to let one be inherited.</summary>
    [LibraryImport("libc", EntryPoint = "dup", SetLastError = true)]
    public static partial int Dup(int descriptor);
}
