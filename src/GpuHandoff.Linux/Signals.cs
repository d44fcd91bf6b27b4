using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>What we make of the signals that our caller may have set.</summary>
public static class Signals
{
    /// <summary>
    /// Our children's ends are ours to ask for, whatever our caller did with SIGCHLD: one that ignores it (<c>trap '' CHLD</c>,
    /// many a daemon) passes that on through exec, and then no exit code is to be had (waitpid(2), ECHILD). Before any child
    /// is started.
    /// </summary>
    public static void HearOfChildren() => _ = Libc.Signal(Libc.ChildEnded, Libc.Default);
}
