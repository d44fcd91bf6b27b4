using System.Text;
using GpuHandoff.Formats;
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

    /// <summary>
    /// A pipe that can be written has room for a page (fs/pipe.c:pipe_poll, pipe_full), and a write of no more than that does not
    /// wait there; a longer one does, until the reader reads.
    /// </summary>
    const int SurelyFits = 4096;

    readonly int _file;
    readonly bool _mayMiss;

    /// <summary>What is said goes to an open file.</summary>
    /// <param name="file">The descriptor.</param>
    /// <param name="mayMiss">A reader that does not read misses what is said, instead of stopping us.</param>
    public Output(int file, bool mayMiss) => (_file, _mayMiss) = (file, mayMiss);

    public static Output Standard { get; } = new(1, mayMiss: false);

    public static Output Error { get; } = new(2, mayMiss: true);

    /// <summary>Lets a write to a pipe without a reader fail with EPIPE instead of killing us (SIGPIPE).</summary>
    public static void IgnoreBrokenPipes() => Libc.Signal(Libc.BrokenPipe, Libc.Ignore);

    public bool IsTerminal() => Libc.IsATerminal(_file) == 1;

    /// <summary>
    /// Writes all of it, newlines as such and every other control character as an escape: part of it may be others' words. A reader
    /// that has gone away (EPIPE) takes nothing from us: the work goes on.
    /// </summary>
    public void Write(string text) => WriteRaw(PlainText.Of(text));

    /// <summary>Back to the beginning of a terminal's line, and erases it.</summary>
    public void EraseLine() => WriteRaw("\r\e[K");

    void WriteRaw(string text)
    {
        ReadOnlySpan<byte> left = Encoding.UTF8.GetBytes(text);
        while (left.Length > 0)
        {
            // A reader of the talk that does not read (a full pipe, Ctrl-S) must not stop a hand-over: what it misses it misses.
            var watched = new Watched { File = _file, Wanted = Libc.Writable };
            if (_mayMiss && Libc.Poll(ref watched, 1, LongestWait) == 0)
                return;
            var part = _mayMiss && left.Length > SurelyFits ? left[..SurelyFits] : left;
            var written = Libc.Write(_file, part, part.Length);
            if (written < 0 && Libc.LastError() == Spawned.Interrupted)
                continue;
            if (written <= 0)
                return;
            left = left[(int)written..];
        }
    }
}
