using System.Runtime.InteropServices;

namespace GpuHandoff.Lab.Interop;

static partial class Libc
{
    [LibraryImport("libc", EntryPoint = "geteuid")]
    public static partial uint GetUid();
}
