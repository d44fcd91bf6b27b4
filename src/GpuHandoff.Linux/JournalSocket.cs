using System.Text;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>
/// systemd's journal by its own protocol: a datagram of <c>FIELD=value</c> lines (systemd.io/JOURNAL_NATIVE_PROTOCOL). Where
/// nobody listens nothing is said, and a journal that does not keep up is not waited for.
/// </summary>
sealed class JournalSocket : IDisposable
{
    public const string Default = "/run/systemd/journal/socket";

    // sockaddr_un.sun_path
    const int LongestPath = 107;

    readonly int _socket;
    readonly byte[] _address;

    JournalSocket(int socket, byte[] address) => (_socket, _address) = (socket, address);

    public static JournalSocket? To(string path)
    {
        if (Encoding.UTF8.GetByteCount(path) > LongestPath || !File.Exists(path))
            return null;
        var socket = Libc.Socket(Libc.LocalSockets, Libc.Datagrams | Libc.NonBlocking | Libc.CloseOnExec, 0);
        return socket < 0 ? null : new(socket, [Libc.LocalSockets, 0, .. Encoding.UTF8.GetBytes(path), 0]);
    }

    /// <summary>One line; what the journal has no room for at this moment is lost.</summary>
    public void Send(Weight weight, string text)
    {
        var message = Encoding.UTF8.GetBytes($"PRIORITY={(int)weight}\nSYSLOG_IDENTIFIER=gpu-handoff\nMESSAGE={text}\n");
        _ = Libc.SendTo(_socket, message, message.Length, Libc.DoNotWait | Libc.NoSignal, _address, (uint)_address.Length);
    }

    public void Dispose() => _ = Libc.Close(_socket);
}
