using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    /// <summary>A descriptor for the process that has the PID now: it never comes to mean another one.</summary>
    [LibraryImport(Library, EntryPoint = "pidfd_open", SetLastError = true)]
    public static partial int OpenProcess(int pid, uint flags);

    [LibraryImport(Library, EntryPoint = "pidfd_send_signal", SetLastError = true)]
    public static partial int SignalProcess(int process, int signal, nint info, uint flags);
}
