using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;
using GpuHandoff.Runs;

namespace GpuHandoff.Linux;

/// <summary>A folder that only its owner, root, may enter. What others could have written is no record of ours.</summary>
sealed class RootFolder(string path)
{
    public const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>The end of the name of a file that is being written and is no record yet.</summary>
    const string Fresh = ".new";

    static int _written;

    public string Path { get; } = path;

    public bool IsThere() => Directory.Exists(Path);

    public void Make()
    {
        try
        {
            Directory.CreateDirectory(Path, OwnerOnly | UnixFileMode.UserExecute);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unwritable(Path, e);
        }
        Trust();
        foreach (var left in Names().Where(IsLeftOver))
            Delete(System.IO.Path.Combine(Path, left));
    }

    public void Trust()
    {
        if (Libc.Statx(Libc.FromCurrentFolder, Path, Libc.NoFollow, Libc.BasicStatus, out var status) != 0)
            throw new LedgerRefused($"{Path} cannot be looked at: {Errno.Say(Libc.LastError())}", "only root may: use sudo");
        if (status.Owner != Libc.UserId() && !RootUser.IsUs())
            throw new LedgerRefused($"{Path} belongs to user {status.Owner}, and only that one may look into it", "use sudo");
        const uint othersWrite = 0x12;
        if (!status.IsFolder || status.Owner != Libc.UserId() || (status.Permissions & othersWrite) != 0)
        {
            throw new LedgerRefused(
                $"{Path} is not a folder that only its owner may write (owner {status.Owner}, mode {Convert.ToString(status.Permissions, 8)})",
                $"find out who changed it, then: sudo chown root:root {Path} && sudo chmod 0700 {Path}");
        }
    }

    /// <summary>
    /// What the files whose names begin and end so hold, in the order of their names; empty where there is no folder. A file that
    /// vanishes between the listing and its opening was not there: another run has ended, and its record with it.
    /// </summary>
    /// <param name="read">Throws <see cref="FileNotFoundException"/> where the file is gone; null: it holds nothing that counts.</param>
    /// <exception cref="LedgerRefused">The folder cannot be trusted or listed, or a file of it cannot be read.</exception>
    public IReadOnlyList<T> Each<T>(string begin, string end, Func<string, T?> read)
        where T : class
    {
        var all = new List<T>();
        foreach (var name in Names().Where(n => n.StartsWith(begin, StringComparison.Ordinal) && n.EndsWith(end, StringComparison.Ordinal)
            && !n.EndsWith(Fresh, StringComparison.Ordinal)).Order(StringComparer.Ordinal))
        {
            var path = System.IO.Path.Combine(Path, name);
            if (Directory.Exists(path))
                continue;
            try
            {
                if (read(path) is { } one)
                    all.Add(one);
            }
            catch (Exception e) when (IsGone(e))
            {
                // Not there, then.
            }
        }
        return all;
    }

    /// <summary>The lines of one file of the folder; empty where there is none.</summary>
    /// <exception cref="LedgerRefused">The folder cannot be trusted, or the file cannot be read.</exception>
    public string[] Lines(string name)
    {
        var path = System.IO.Path.Combine(Path, name);
        try
        {
            if (!IsThere())
                return [];
            Trust();
            return File.ReadAllLines(path);
        }
        catch (Exception e) when (IsGone(e))
        {
            return [];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unreadable(path, e);
        }
    }

    /// <summary>Whether an error says that there is no such file.</summary>
    public static bool IsGone(Exception error) => error is FileNotFoundException or DirectoryNotFoundException;

    /// <summary>Whether an error is one of reading, other than that there is no such file.</summary>
    public static bool IsTrouble(Exception error) => error is IOException or UnauthorizedAccessException && !IsGone(error);

    List<string> Names()
    {
        if (!IsThere())
            return [];
        Trust();
        if (FolderNames.In(Path) is { } names)
            return names;
        return Libc.LastError() is var errno && errno == Errno.NoEntry
            ? []
            : throw new LedgerRefused($"{Path} cannot be listed: {Errno.Say(errno)}", "mend the file system");
    }

    /// <summary>A name of its own for each write: two processes may write the same record, and each puts a whole one in place.</summary>
    static string FreshFor(string path) =>
        string.Create(CultureInfo.InvariantCulture, $"{path}.{Environment.ProcessId}-{Interlocked.Increment(ref _written)}{Fresh}");

    // home-0000:05:00.0.json.4211-7.new
    /// <summary>Whether its writer was killed before it could put the file in place. One of an older program has no PID and is left.</summary>
    static bool IsLeftOver(string name) => name.EndsWith(Fresh, StringComparison.Ordinal)
        && name[..^Fresh.Length] is var rest && rest[(rest.LastIndexOf('.') + 1)..].Split('-') is [var pid, _]
        && int.TryParse(pid, NumberStyles.None, CultureInfo.InvariantCulture, out var writer)
        && !Directory.Exists($"/proc/{writer}");

    /// <summary>A new file that only its owner may read. Never one that is there already, nor through a link.</summary>
    static FileStream Create(string path) => new(path, new FileStreamOptions
    {
        Mode = FileMode.CreateNew,
        Access = FileAccess.Write,
        UnixCreateMode = OwnerOnly,
        // What a full disk refused must not be tried once more when the file is closed.
        BufferSize = 0,
    });

    /// <summary>Puts a whole file in the place of another: a reader meanwhile finds the one or the other, and never none or a half.</summary>
    /// <param name="toDisk">Before this returns; else the kernel chooses when, as it does for any file.</param>
    public void Replace(string path, Action<Stream> write, bool toDisk = true)
    {
        using var file = Replacing(path, keep: null, file =>
        {
            write(file);
            file.Flush(flushToDisk: toDisk);
        });
        if (toDisk)
            FlushFor(path);
    }

    /// <summary>The same with a file that is written on, once it is in place; on disk with its name when this returns.</summary>
    /// <param name="keep">The name under which the file that was there is kept.</param>
    public FileStream Replace(string path, string keep, Action<FileStream> write)
    {
        var file = Replacing(path, keep, write);
        try
        {
            FlushFor(path);
            return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    static FileStream Replacing(string path, string? keep, Action<FileStream> write)
    {
        var fresh = FreshFor(path);
        FileStream? file = null;
        try
        {
            // One of an earlier process that had our PID.
            File.Delete(fresh);
            file = Create(fresh);
            write(file);
            if (keep is not null)
                Keep(path, keep);
            File.Move(fresh, path, overwrite: true);
            return file;
        }
        catch (Exception e)
        {
            file?.Dispose();
            Discard(fresh);
            if (e is IOException or UnauthorizedAccessException)
                throw Unwritable(path, e);
            throw;
        }
    }

    /// <summary>Gives a file a second name, in the place of what has that now. Its own name stays in place all the while.</summary>
    static void Keep(string path, string keep)
    {
        var second = FreshFor(keep);
        try
        {
            File.Delete(second);
            if (Libc.HardLink(path, second) != 0)
            {
                if (Libc.LastError() == Errno.NoEntry)
                    return;
                // A file system without hard links, or with as many as it can have.
                File.Copy(path, second);
            }
            File.Move(second, keep, overwrite: true);
        }
        catch (FileNotFoundException)
        {
            // Gone in this moment: nothing to keep.
        }
        finally
        {
            // rename(2) of two names of one file does nothing, and leaves both.
            Discard(second);
        }
    }

    static void Discard(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It is no record, and the next write to the folder takes it away.
        }
    }

    void FlushFor(string path)
    {
        try
        {
            Flush();
        }
        catch (IOException e)
        {
            throw Unwritable(path, e);
        }
    }

    public static void Delete(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (DirectoryNotFoundException)
        {
            // No folder, no file.
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unwritable(path, e);
        }
    }

    /// <summary>A new name is on disk when its folder is.</summary>
    void Flush()
    {
        var handle = Libc.Open(Path, Libc.ReadOnly | Libc.CloseOnExec);
        var flushed = handle >= 0 && Libc.Sync(handle) == 0;
        var errno = Libc.LastError();
        if (handle >= 0)
            _ = Libc.Close(handle);
        if (!flushed)
            throw new IOException($"{Path} could not be flushed to disk: {Errno.Say(errno)}");
    }

    public static LedgerRefused Unreadable(string path, Exception cause) => new($"{path} cannot be read: {cause.Message}", "only root may read it: use sudo", cause);

    public static LedgerRefused Unwritable(string path, Exception cause) => new(
        $"{path} cannot be written: {cause.Message}", "make room, or mend the file system: nothing is changed that is not written down first", cause);
}
