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

    /// <summary>POLLHUP: the other end of a pipe is closed. Seen whether it is wanted or not.</summary>
    public const short HungUp = 16;

    [LibraryImport(Library, EntryPoint = "poll", SetLastError = true)]
    public static partial int Poll(ref Watched watched, nuint count, int milliseconds);
}
