using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

/// <summary>The C library, one function per file.</summary>
static partial class Libc
{
    const string Library = "libc";

    /// <summary>The error number of the last call that failed.</summary>
    public static int LastError() => Marshal.GetLastPInvokeError();
}
