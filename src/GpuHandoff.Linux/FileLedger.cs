using System.Collections.Immutable;
using System.Text.Json;
using GpuHandoff.Formats;
using GpuHandoff.Linux.Interop;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;

namespace GpuHandoff.Linux;

/// <summary>
/// The ledger as files of one folder that only root may enter: <c>home-0000:05:00.0.json</c> for each card that is away,
/// <c>journal</c> for the last run and <c>journal.previous</c> for the one before. Whatever is written is on disk before
/// the call returns.
/// </summary>
public sealed class FileLedger(string folder) : ILedger
{
    public const string DefaultFolder = "/var/lib/gpu-handoff";

    const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    public ImmutableArray<Home> Homes()
    {
        if (!Directory.Exists(folder))
            return [];
        Trust();
        return [.. Directory.GetFiles(folder, "home-*.json").Order(StringComparer.Ordinal).Select(Read)];
    }

    public void Keep(Home home)
    {
        Make();
        var path = PathOf(home.Gpu);
        var fresh = path + ".new";
        try
        {
            File.Delete(fresh);
            using (var file = Create(fresh))
            {
                JsonSerializer.Serialize(file, home, Json.Default.Home);
                file.Flush(flushToDisk: true);
            }
            File.Move(fresh, path, overwrite: true);
            FlushFolder();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unwritable(path, e);
        }
    }

    public void Forget(PciAddress gpu)
    {
        var path = PathOf(gpu);
        try
        {
            File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unwritable(path, e);
        }
    }

    public IJournal Open(Plan plan)
    {
        Make();
        var path = Path.Combine(folder, "journal");
        try
        {
            if (File.Exists(path))
                File.Move(path, path + ".previous", overwrite: true);
            var file = Create(path);
            var journal = new FileJournal(path, file);
            journal.Opens(plan);
            FlushFolder();
            return journal;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unwritable(path, e);
        }
    }

    string PathOf(PciAddress gpu) => Path.Combine(folder, $"home-{gpu}.json");

    static FileStream Create(string path) => new(path, new FileStreamOptions
    {
        Mode = FileMode.CreateNew,
        Access = FileAccess.Write,
        UnixCreateMode = OwnerOnly,
    });

    static Home Read(string path)
    {
        try
        {
            using var file = File.OpenRead(path);
            return JsonSerializer.Deserialize(file, Json.Default.Home) is { Functions.IsDefault: false } home
                ? home.Version > Home.Newest ? throw new JsonException($"it has version {home.Version}, and this program knows {Home.Newest}") : home with
                {
                    Modules = home.Modules.IsDefault ? [] : home.Modules,
                    Nodes = home.Nodes.IsDefault ? [] : home.Nodes,
                    // Version 1 did not know of anything stopped.
                    Stopped = home.Stopped.IsDefault ? [] : home.Stopped,
                    Version = Home.Newest,
                }
                : throw new JsonException("it is empty");
        }
        catch (JsonException e)
        {
            throw new LedgerRefused(
                $"{path}, line {e.LineNumber + 1 ?? 1}: the record of a card's drivers cannot be read: {e.Message}",
                $"look at it; if it is of no use, remove it: sudo rm '{path}' (the card then goes back to its usual driver)",
                e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new LedgerRefused($"{path} cannot be read: {e.Message}", "only root may read it: use sudo", e);
        }
    }

    void Make()
    {
        try
        {
            Directory.CreateDirectory(folder, OwnerOnly | UnixFileMode.UserExecute);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw Unwritable(folder, e);
        }
        Trust();
    }

    /// <summary>What others could have written is no record of ours.</summary>
    void Trust()
    {
        if (Libc.Statx(Libc.FromCurrentFolder, folder, Libc.NoFollow, Libc.BasicStatus, out var status) != 0)
            throw new LedgerRefused($"{folder} cannot be looked at: {Kernel.Errno.Say(Libc.LastError())}", "only root may: use sudo");
        if (status.Owner != Libc.UserId() && !RootUser.IsUs())
            throw new LedgerRefused($"{folder} belongs to user {status.Owner}, and only that one may look into it", "use sudo");
        const uint othersWrite = 0x12;
        if (!status.IsFolder || status.Owner != Libc.UserId() || (status.Permissions & othersWrite) != 0)
        {
            throw new LedgerRefused(
                $"{folder} is not a folder that only its owner may write (owner {status.Owner}, mode {Convert.ToString(status.Permissions, 8)})",
                $"find out who changed it, then: sudo chown root:root {folder} && sudo chmod 0700 {folder}");
        }
    }

    void FlushFolder()
    {
        var handle = Libc.Open(folder, Libc.ReadOnly | Libc.CloseOnExec);
        var flushed = handle >= 0 && Libc.Sync(handle) == 0;
        var errno = Libc.LastError();
        if (handle >= 0)
            _ = Libc.Close(handle);
        if (!flushed)
            throw new IOException($"{folder} could not be flushed to disk: {Kernel.Errno.Say(errno)}");
    }

    static LedgerRefused Unwritable(string path, Exception cause) => new(
        $"{path} cannot be written: {cause.Message}", "make room, or mend the file system: nothing is changed that is not written down first", cause);
}
