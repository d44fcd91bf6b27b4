using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

[StructLayout(LayoutKind.Sequential)]
struct TimeSpec
{
    public long Seconds;
    public long Nanoseconds;
}

static partial class Libc
{
    /// <summary>CLOCK_BOOTTIME: goes on while the machine sleeps.</summary>
    public const int SinceBoot = 7;

    [LibraryImport(Library, EntryPoint = "clock_gettime", SetLastError = true)]
    public static partial int ClockGetTime(int clock, out TimeSpec time);
}
