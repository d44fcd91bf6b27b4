using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    public const int DoNotWait = 0x40;
    public const int NoSignal = 0x4000;

    /// <param name="address">struct sockaddr_un: the family in two bytes, then the path with its zero.</param>
    [LibraryImport(Library, EntryPoint = "sendto", SetLastError = true)]
    public static partial nint SendTo(int socket, ReadOnlySpan<byte> message, nint length, int flags, ReadOnlySpan<byte> address, uint addressLength);
}
