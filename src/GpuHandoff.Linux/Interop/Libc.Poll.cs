using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

/// <summary>struct pollfd (poll.h).</summary>
[StructLayout(LayoutKind.Sequential)]
struct Watched
{
    public int File;
    public short Wanted;
    public short Seen;
}

static partial class Libc
{
    public const short Readable = 1;
    public const short Writable = 4;

    [LibraryImport(Library, EntryPoint = "poll", SetLastError = true)]
    public static partial int Poll(ref Watched watched, nuint count, int milliseconds);
}
