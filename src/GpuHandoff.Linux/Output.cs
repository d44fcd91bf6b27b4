using System.Text;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>
/// Standard output or error, written straight to the descriptor: System.Console starts a thread for signals and looks the
/// terminal over first, which costs more than all of <c>status</c>.
/// </summary>
public sealed class Output
{
    /// <summary>In milliseconds, for a reader that is slow.</summary>
    const int LongestWait = 1000;

    readonly int _file;

    Output(int file) => _file = file;

    public static Output Standard { get; } = new(1);

    public static Output Error { get; } = new(2);

    /// <summary>Lets a write to a pipe without a reader fail with EPIPE instead of killing us (SIGPIPE).</summary>
    public static void IgnoreBrokenPipes() => Libc.Signal(Libc.BrokenPipe, Libc.Ignore);

    public bool IsTerminal() => Libc.IsATerminal(_file) == 1;

    /// <summary>Writes all of it. A reader that has gone away (EPIPE) takes nothing from us: the work goes on.</summary>
    public void Write(string text)
    {
        ReadOnlySpan<byte> left = Encoding.UTF8.GetBytes(text);
        while (left.Length > 0)
        {
            // A reader of the talk that does not read (a full pipe, Ctrl-S) must not stop a hand-over: what it misses it misses.
            var watched = new Watched { File = _file, Wanted = Libc.Writable };
            if (_file == Error._file && Libc.Poll(ref watched, 1, LongestWait) == 0)
                return;
            var written = Libc.Write(_file, left, left.Length);
            if (written < 0 && Libc.LastError() == Spawned.Interrupted)
                continue;
            if (written <= 0)
                return;
            left = left[(int)written..];
        }
    }
}
