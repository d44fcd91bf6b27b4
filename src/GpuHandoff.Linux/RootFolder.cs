using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;
using GpuHandoff.Runs;

namespace GpuHandoff.Linux;

/// <summary>A folder that only its owner, root, may enter. What others could have written is no record of ours.</summary>
sealed class RootFolder(string path)
{
    public const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

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

    /// <summary>Files by how their names begin and end, in order; none where there is no folder.</summary>
    public IReadOnlyList<string> Files(string begin, string end = "")
    {
        if (!IsThere())
            return [];
        Trust();
        if (FolderNames.In(Path) is not { } names)
            throw new LedgerRefused($"{Path} cannot be listed: {Errno.Say(Libc.LastError())}", "mend the file system");
        names.RemoveAll(name => !name.StartsWith(begin, StringComparison.Ordinal) || !name.EndsWith(end, StringComparison.Ordinal));
        names.Sort(StringComparer.Ordinal);
        return [.. names.Select(name => System.IO.Path.Combine(Path, name)).Where(path => !Directory.Exists(path))];
    }

    /// <summary>A new file that only its owner may read. Never one that is there already, nor through a link.</summary>
    public static FileStream Create(string path) => new(path, new FileStreamOptions
    {
        Mode = FileMode.CreateNew,
        Access = FileAccess.Write,
        UnixCreateMode = OwnerOnly,
        // What a full disk refused must not be tried once more when the file is closed.
        BufferSize = 0,
    });

    /// <summary>Puts a whole file in the place of another.</summary>
    /// <param name="toDisk">Before this returns; else the kernel chooses when, as it does for any file.</param>
    public void Replace(string path, Action<Stream> write, bool toDisk = true)
    {
        var fresh = path + ".new";
        try
        {
            File.Delete(fresh);
            using (var file = Create(fresh))
            {
                write(file);
                file.Flush(flushToDisk: toDisk);
            }
            File.Move(fresh, path, overwrite: true);
            if (toDisk)
                Flush();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
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
    public void Flush()
    {
        var handle = Libc.Open(Path, Libc.ReadOnly | Libc.CloseOnExec);
        var flushed = handle >= 0 && Libc.Sync(handle) == 0;
        var errno = Libc.LastError();
        if (handle >= 0)
            _ = Libc.Close(handle);
        if (!flushed)
            throw new IOException($"{Path} could not be flushed to disk: {Errno.Say(errno)}");
    }

    public static LedgerRefused Unwritable(string path, Exception cause) => new(
        $"{path} cannot be written: {cause.Message}", "make room, or mend the file system: nothing is changed that is not written down first", cause);
}
