using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    public const int Hangup = 1;
    public const int Interrupt = 2;
    public const int BrokenPipe = 13;
    public const int Terminate = 15;
    public const int ChildEnded = 17;
    public const nint Default = 0;
    public const nint Ignore = 1;

    [LibraryImport(Library, EntryPoint = "signal")]
    public static partial nint Signal(int signal, nint handler);
}
