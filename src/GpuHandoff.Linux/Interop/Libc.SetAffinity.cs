using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    /// <summary>Says where a thread may run.</summary>
    /// <param name="mask">A bit a processor, in words of the machine's order (x86: the first byte has 0 to 7).</param>
    [LibraryImport(Library, EntryPoint = "sched_setaffinity", SetLastError = true)]
    public static partial int SetAffinity(int thread, nuint length, ReadOnlySpan<byte> mask);
}
