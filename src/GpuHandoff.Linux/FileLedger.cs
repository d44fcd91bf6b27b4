using System.Collections.Immutable;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using GpuHandoff.Formats;
using GpuHandoff.Guests;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;

namespace GpuHandoff.Linux;

/// <summary>
/// The ledger as files of two folders that only root may enter. What is written is on disk before the call returns, but for what
/// is added to a lease.
/// <list type="bullet">
/// <item><c>/var/lib/gpu-handoff/home-0000:05:00.0.json</c> for each card that is away;</item>
/// <item><c>lease-0000:05:00.0.json</c> for each card that is lent to a VM;</item>
/// <item><c>journal-0000:05:00.0</c> for the last run of each card, <c>….previous</c> for the one before;</item>
/// <item><c>/run/gpu-handoff/wedged-0000:05:00.0.json</c> for a card with a call that never came back;</item>
/// <item><c>told-0000:05:00.0</c>, <c>known-damage</c> for what the timer has told already.</item>
/// </list>
/// </summary>
public sealed class FileLedger(string folder, string ofThisBoot) : ILedger
{
    public const string DefaultFolder = "/var/lib/gpu-handoff";

    /// <summary>Gone with the boot, as what is told in it; and never full when a disk is.</summary>
    public const string DefaultOfThisBoot = "/run/gpu-handoff";

    // No run of ours writes so much, and a stranger's file must not fill our memory.
    const int LongestJournal = 4 * 1024 * 1024;

    const int MostTold = 16;

    // A power cut and the next boot are further apart than that.
    static readonly TimeSpan _clocksMargin = TimeSpan.FromSeconds(5);

    readonly RootFolder _lasting = new(folder);
    readonly RootFolder _boot = new(ofThisBoot);

    public ImmutableArray<Home> Homes() => [.. _lasting.Files("home-", ".json").Select(ReadHome)];

    public void Keep(Home home)
    {
        _lasting.Make();
        _lasting.Replace(HomeOf(home.Gpu), file => JsonSerializer.Serialize(file, home, Json.Default.Home));
    }

    public void Forget(PciAddress gpu) => RootFolder.Delete(HomeOf(gpu));

    public ImmutableArray<Lease> Leases() => [.. Records().OfType<Lease>()];

    public ImmutableArray<DamagedLease> Damaged() => [.. Records().OfType<DamagedLease>()];

    public bool IsKnown(DamagedLease damaged) => _boot.Files("known-damage").Any(path => File.ReadLines(path).Contains(damaged.What));

    public void Know(DamagedLease damaged)
    {
        _boot.Make();
        // What is mended meanwhile, and damaged anew, is news again.
        var known = Damaged().Where(d => d == damaged || IsKnown(d)).Select(d => d.What);
        _boot.Replace(Path.Combine(ofThisBoot, "known-damage"), file => file.Write(Encoding.UTF8.GetBytes(string.Concat(known.Select(what => what + "\n")))));
    }

    public bool IsTold(PciAddress gpu, string what) => Told(gpu).Contains(OneLine(what));

    public void KeepTold(PciAddress gpu, string what)
    {
        _boot.Make();
        // What has a number in it that changes each time must not fill the memory.
        var told = Told(gpu).Append(OneLine(what)).TakeLast(MostTold).ToList();
        _boot.Replace(ToldOf(gpu), file => file.Write(Encoding.UTF8.GetBytes(string.Concat(told.Select(line => line + "\n")))));
    }

    List<string> Told(PciAddress gpu) => [.. _boot.Files(Path.GetFileName(ToldOf(gpu))).Where(path => path == ToldOf(gpu)).SelectMany(File.ReadLines)];

    static string OneLine(string what) => what.ReplaceLineEndings(" ");

    IEnumerable<object?> Records() => _lasting.Files("lease-", ".json").Select(object? (path) =>
    {
        try
        {
            return ReadLease(path);
        }
        catch (LedgerRefused refused)
        {
            // It has ended since the folder was listed.
            if (refused.InnerException is FileNotFoundException)
                return null;
            var name = Path.GetFileName(path)["lease-".Length..^".json".Length];
            PciAddress? gpu = PciAddress.TryParse(name, out var named) ? named : null;
            return new DamagedLease(gpu, OneLine(refused.Message), refused.Hint)
            {
                // Only what can be removed by its card.
                IsOfEarlierBoot = gpu is { } card && path == LeaseOf(card) && IsOfEarlierBoot(path),
            };
        }
    });

    /// <summary>
    /// Whether a file was written before this boot. The clock on the wall is often set after the boot. Set forward, it makes
    /// the boot seem later than what was written in it: therefore the stamp of a folder that was made in it counts, too, before
    /// anything was lent (locks are in it). Set back, it makes that folder seem later: therefore the earlier one of both.
    /// </summary>
    bool IsOfEarlierBoot(string path)
    {
        try
        {
            // CLOCK_BOOTTIME: what a host slept is time since its boot (fs/proc/uptime.c:uptime_proc_show).
            var up = double.Parse(File.ReadAllText("/proc/uptime").Split(' ')[0], CultureInfo.InvariantCulture);
            var boot = DateTime.UtcNow - TimeSpan.FromSeconds(up);
            if (_boot.IsThere() && Directory.GetCreationTimeUtc(ofThisBoot) is var made && made < boot)
                boot = made;
            // A file that is gone is of the year 1601.
            return File.Exists(path) && File.GetLastWriteTimeUtc(path) < boot - _clocksMargin;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or FormatException)
        {
            return false;
        }
    }

    public void Lend(Lease lease)
    {
        _lasting.Make();
        // When it is known to be ready, it is on disk without that word already, and none of it outlives the boot.
        _lasting.Replace(LeaseOf(lease.Gpu), file => JsonSerializer.Serialize(file, lease, Json.Default.Lease), toDisk: lease.Ready is null);
    }

    public void EndLease(PciAddress gpu)
    {
        RootFolder.Delete(LeaseOf(gpu));
        RootFolder.Delete(ToldOf(gpu));
    }

    public IJournal Open(Plan plan)
    {
        _lasting.Make();
        var path = Path.Combine(folder, $"journal-{plan.Gpus[0]}");
        try
        {
            if (File.Exists(path))
                File.Move(path, path + ".previous", overwrite: true);
            var journal = new FileJournal(path, RootFolder.Create(path));
            journal.Opens(plan);
            _lasting.Flush();
            return journal;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw RootFolder.Unwritable(path, e);
        }
    }

    public ImmutableArray<Unfinished> Unfinished() =>
    [
        .. _lasting.Files("journal-").Where(path => !path.EndsWith(".previous", StringComparison.Ordinal)).Select(ReadJournal).OfType<Unfinished>(),
    ];

    public void Close(Unfinished run, string how) => Append(run, JournalText.Closes(how));

    public void Stick(Unfinished run) => Append(run, JournalText.Sticks);

    static void Append(Unfinished run, string line)
    {
        try
        {
            using var file = new FileStream(run.Source, FileMode.Open, FileAccess.ReadWrite);
            // Behind a line that was cut off: nobody shall read the two as one.
            file.SetLength(EndOfLastLine(file));
            file.Seek(0, SeekOrigin.End);
            file.Write(Encoding.UTF8.GetBytes(line + "\n"));
            file.Flush(flushToDisk: true);
        }
        catch (FileNotFoundException)
        {
            // Another run's diary is in its place by now, or the place is empty: closed enough.
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw RootFolder.Unwritable(run.Source, e);
        }
    }

    public ImmutableArray<Wedge> Wedges() => [.. _boot.Files("wedged-", ".json").Select(ReadWedge)];

    public void Mark(Wedge wedge)
    {
        _boot.Make();
        _boot.Replace(WedgeOf(wedge.Gpu), file => JsonSerializer.Serialize(file, wedge, Json.Default.Wedge));
    }

    public void Unmark(PciAddress gpu) => RootFolder.Delete(WedgeOf(gpu));

    string HomeOf(PciAddress gpu) => Path.Combine(folder, $"home-{gpu}.json");

    string LeaseOf(PciAddress gpu) => Path.Combine(folder, $"lease-{gpu}.json");

    string ToldOf(PciAddress gpu) => Path.Combine(ofThisBoot, $"told-{gpu}");

    string WedgeOf(PciAddress gpu) => Path.Combine(ofThisBoot, $"wedged-{gpu}.json");

    static long EndOfLastLine(FileStream file)
    {
        var end = file.Length;
        for (; end > 0; end--)
        {
            file.Seek(end - 1, SeekOrigin.Begin);
            if (file.ReadByte() == '\n')
                break;
        }
        return end;
    }

    static Home ReadHome(string path)
    {
        var home = Read(
            path, Json.Default.Home, h => h.Version > Home.Newest ? h.Version : null, Home.Newest,
            "the record of a card's drivers", "the card then goes back to its usual driver");
        return home.Functions.IsDefault
            ? throw Unreadable(path, 1, "the record of a card's drivers", "it is empty", "the card then goes back to its usual driver")
            : home with
            {
                Modules = home.Modules.IsDefault ? [] : home.Modules,
                Nodes = home.Nodes.IsDefault ? [] : home.Nodes,
                // Version 1 did not know of anything stopped.
                Stopped = home.Stopped.IsDefault ? [] : home.Stopped,
                Version = Home.Newest,
            };
    }

    static Lease ReadLease(string path)
    {
        const string what = "the record of whom a card is lent to";
        const string without = "the card then no longer counts as lent: hand it back by hand when its VM is off";
        var lease = Read(path, Json.Default.Lease, l => l.Version > Lease.Newest ? l.Version : null, Lease.Newest, what, without);
        return lease.Functions.IsDefault
            ? throw Unreadable(path, 1, what, "it is empty", without)
            : lease with { Pinned = lease.Pinned.IsDefault ? [] : lease.Pinned };
    }

    static Wedge ReadWedge(string path)
    {
        var wedge = Read(
            path, Json.Default.Wedge, w => w.Version > Wedge.Newest ? w.Version : null, Wedge.Newest,
            "the mark of a card that is stuck", "the card then no longer counts as stuck");
        return wedge with { NotUndone = wedge.NotUndone.IsDefault ? [] : wedge.NotUndone };
    }

    static T Read<T>(string path, JsonTypeInfo<T> type, Func<T, int?> tooNew, int known, string what, string without)
        where T : class
    {
        try
        {
            using var file = File.OpenRead(path);
            return JsonSerializer.Deserialize(file, type) switch
            {
                null => throw Unreadable(path, 1, what, "it is empty", without),
                var read when tooNew(read) is { } version =>
                    throw Unreadable(path, 1, what, $"it has version {version}, and this program knows {known}", without),
                var read => read,
            };
        }
        catch (JsonException e)
        {
            throw Unreadable(path, e.LineNumber + 1 ?? 1, what, e.Message, without, e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new LedgerRefused($"{path} cannot be read: {e.Message}", "only root may read it: use sudo", e);
        }
    }

    static Unfinished? ReadJournal(string path)
    {
        const string what = "the journal of a run";
        const string without = "what that run had begun is then not taken back";
        try
        {
            if (new FileInfo(path).Length > LongestJournal)
                throw Unreadable(path, 1, what, $"it is longer than {LongestJournal} bytes", without);
            return JournalText.Read(File.ReadAllText(path), path);
        }
        catch (JournalUnreadable e)
        {
            throw Unreadable(path, e.Line, what, e.Message, without, e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new LedgerRefused($"{path} cannot be read: {e.Message}", "only root may read it: use sudo", e);
        }
    }

    static LedgerRefused Unreadable(string path, long line, string what, string why, string without, Exception? cause = null) => new(
        $"{path}, line {line}: {what} cannot be read: {why}",
        $"look at it; if it is of no use, remove it: sudo rm '{path}' ({without})",
        cause);
}
