using System.Globalization;
using System.Text;
using GpuHandoff.Formats;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>How much a line of the log weighs, by its number in the journal (sys/syslog.h).</summary>
public enum Weight
{
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

/// <summary>
/// What a run tells, in a file and in systemd's journal, for who cannot see the screen that it took away. It may fail and must
/// not disturb: a line that cannot be written is left out, and the first such trouble is told once.
/// </summary>
/// <remarks>
/// Each line is one write, at its end: it survives our own death at once, and a crash of the machine from the next
/// <see cref="ToDisk"/> on. One that waited for the disk with each line would cost more than the hand-over.
/// </remarks>
public sealed class RunLog : IDisposable
{
    public const string Default = "/var/log/gpu-handoff.log";

    /// <summary>From here on the next run begins a new file, and the old one is kept as <c>.1</c>.</summary>
    public const long Longest = 1024 * 1024;

    // ELOOP, by which open(2) refuses a link with O_NOFOLLOW.
    const int TooManyLinks = 40;

    readonly string _path;
    readonly int _file;
    readonly JournalSocket? _journal;

    RunLog(string path, int file, JournalSocket? journal, string? trouble) =>
        (_path, _file, _journal, Trouble) = (path, file, journal, trouble);

    /// <summary>Why there is no file, or not all of it; null: there is one, and all is in it.</summary>
    public string? Trouble { get; private set; }

    public static RunLog Open() => Open(Default, JournalSocket.Default);

    public static RunLog Open(string path, string journal)
    {
        var (file, trouble) = OpenFile(path);
        return new(path, file, JournalSocket.To(journal), trouble);
    }

    static (int File, string? Trouble) OpenFile(string path)
    {
        for (var again = false; ; again = true)
        {
            // Not through a link, and without waiting for a reader of a pipe: whoever may write there must not lead us elsewhere.
            var file = Libc.Open(
                path, Libc.WriteOnly | Libc.CreateIt | Libc.AtItsEnd | Libc.NoLink | Libc.NonBlocking | Libc.CloseOnExec, (int)RootFolder.OwnerOnly);
            if (file < 0)
                return (-1, Libc.LastError() == TooManyLinks ? $"{path} is a symbolic link: it is left alone" : $"{path} cannot be written: {Errno.Say(Libc.LastError())}");
            var known = Libc.Statx(file, "", Libc.EmptyPath, Libc.BasicStatus, out var status) == 0;
            if (!known || !status.IsFile || status.Owner != Libc.UserId())
            {
                _ = Libc.Close(file);
                return (-1, $"{path} is no plain file of ours: it is left alone");
            }
            if (again || status.Size < Longest || Libc.Rename(path, path + ".1") != 0)
                return (file, null);
            _ = Libc.Close(file);
        }
    }

    public void Line(Weight weight, string text)
    {
        var now = DateTime.UtcNow.ToString("yyyy-MM-ddTHH:mm:ss.fffZ", CultureInfo.InvariantCulture);
        // What a program complained of may have lines of its own.
        foreach (var line in PlainText.Lines(text))
        {
            _journal?.Send(weight, line);
            if (_file < 0)
                continue;
            var bytes = Encoding.UTF8.GetBytes($"{now} [{Environment.ProcessId}] {line}\n");
            if (Libc.Write(_file, bytes, bytes.Length) != bytes.Length)
                Trouble ??= $"{_path} cannot be written: {Errno.Say(Libc.LastError())}";
        }
    }

    /// <summary>Brings what was told to the disk.</summary>
    public void ToDisk()
    {
        if (_file >= 0)
            _ = Libc.SyncData(_file);
    }

    public void Dispose()
    {
        if (_file >= 0)
            _ = Libc.Close(_file);
        _journal?.Dispose();
    }
}
