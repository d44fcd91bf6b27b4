using System.Diagnostics;
using System.Text;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>A short talk with somebody who listens at a Unix socket: our words, and his until they are all.</summary>
static class UnixSocket
{
    // sockaddr_un.sun_path
    const int LongestPath = 107;

    // A stranger's talk must not fill our memory.
    const int MostHeard = 1 << 20;

    const int BetweenTries = 50;

    public static string Converse(string path, string text, Func<string, bool> isAll, TimeSpan budget)
    {
        var saying = $"ask {path}";
        if (Encoding.UTF8.GetByteCount(path) > LongestPath)
            throw new KernelRefused(saying, 0, "the path is too long for a socket");
        var socket = Libc.Socket(Libc.LocalSockets, Libc.Streams | Libc.NonBlocking | Libc.CloseOnExec, 0);
        if (socket < 0)
            throw Refused(saying);
        var clock = Stopwatch.StartNew();
        try
        {
            byte[] address = [Libc.LocalSockets, 0, .. Encoding.UTF8.GetBytes(path), 0];
            while (Libc.Connect(socket, address, (uint)address.Length) != 0)
            {
                // Somebody else talks to it, and others wait: QEMU serves one at a time.
                if (Libc.LastError() is not (Errno.TryAgain or Spawned.Interrupted))
                    throw Refused(saying);
                if (clock.Elapsed >= budget)
                    throw Late(saying, budget);
                Thread.Sleep(BetweenTries);
            }
            // A few words, which the socket's buffer takes at once.
            var words = Encoding.UTF8.GetBytes(text);
            // One that has hung up by now may have said something before.
            if (Libc.SendTo(socket, words, words.Length, Libc.NoSignal, [], 0) != words.Length && Libc.LastError() != Errno.BrokenPipe)
                throw Refused(saying);
            return Hear(socket, saying, isAll, clock, budget);
        }
        finally
        {
            _ = Libc.Close(socket);
        }
    }

    static string Hear(int socket, string saying, Func<string, bool> isAll, Stopwatch clock, TimeSpan budget)
    {
        var heard = new MemoryStream();
        Span<byte> buffer = stackalloc byte[4096];
        while (true)
        {
            var left = (budget - clock.Elapsed).TotalMilliseconds;
            var watched = new Watched { File = socket, Wanted = Libc.Readable };
            if (left <= 0 || Libc.Poll(ref watched, 1, (int)Math.Ceiling(left)) == 0)
                throw Late(saying, budget);
            var got = Libc.Read(socket, buffer, buffer.Length);
            if (got < 0)
            {
                if (Libc.LastError() is Errno.TryAgain or Spawned.Interrupted)
                    continue;
                // It has hung up before it had heard all of ours.
                if (Libc.LastError() == Errno.ConnectionReset)
                    got = 0;
                else
                    throw Refused(saying);
            }
            heard.Write(buffer[..(int)got]);
            if (heard.Length > MostHeard)
                throw new KernelRefused(saying, 0, $"it does not stop talking: more than {MostHeard >> 20} MiB");
            var text = Encoding.UTF8.GetString(heard.GetBuffer().AsSpan(0, (int)heard.Length));
            if (got == 0 || isAll(text))
                return text;
        }
    }

    static KernelRefused Late(string saying, TimeSpan budget) => new(saying, 0, $"no answer within {budget.TotalSeconds:0.#} s");

    static KernelRefused Refused(string saying) => new(saying, Libc.LastError(), Errno.Say(Libc.LastError()));
}
