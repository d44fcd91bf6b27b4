using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    public const int Streams = 1;

    /// <summary>Connects; for a Unix socket that does not wait it is EAGAIN where too many wait already (net/unix/af_unix.c).</summary>
    /// <param name="address">struct sockaddr_un: the family in two bytes, then the path with its zero.</param>
    [LibraryImport(Library, EntryPoint = "connect", SetLastError = true)]
    public static partial int Connect(int socket, ReadOnlySpan<byte> address, uint addressLength);
}
