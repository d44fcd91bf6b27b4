using System.Runtime.InteropServices;

namespace GpuHandoff.Lab.Interop;

static partial class Libc
{
    public const int UnixFamily = 1;
    public const int Stream = 1;
    public const int CloseOnExec = 0x80000;

    /// <summary>socketpair(2): two sockets, each the other's far end.</summary>
    [LibraryImport("libc", EntryPoint = "socketpair", SetLastError = true)]
    public static partial int SocketPair(int family, int type, int protocol, [Out] int[] pair);
}
