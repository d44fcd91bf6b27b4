using System.ComponentModel;
using System.Net.Sockets;
using GpuHandoff.Lab.Interop;

namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>
/// A pair of sockets, one end for us and one for a child to inherit. .NET has no way to hand a descriptor to a process, but
/// a process gets every one that is not marked close-on-exec: so both ends are made with the mark, and the child's is
/// replaced by a copy, which has none.
/// </summary>
sealed class SocketToChild : IDisposable
{
    int child;

    public SocketToChild()
    {
        var pair = new int[2];
        if (Libc.SocketPair(Libc.UnixFamily, Libc.Stream | Libc.CloseOnExec, 0, pair) != 0)
            throw new Win32Exception();
        Ours = new(new SafeSocketHandle(pair[0], ownsHandle: true));
        child = Libc.Dup(pair[1]);
        var trouble = child < 0 ? new Win32Exception() : null;
        _ = Libc.Close(pair[1]);
        if (trouble is not null)
            throw trouble;
    }

    public Socket Ours { get; }

    public int ChildDescriptor => child;

    /// <summary>After the child began: else its end stays open here, and we never see it hang up.</summary>
    public void CloseChildEnd()
    {
        if (Interlocked.Exchange(ref child, -1) is >= 0 and var descriptor)
            _ = Libc.Close(descriptor);
    }

    public void Dispose()
    {
        CloseChildEnd();
        Ours.Dispose();
    }
}
