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

    const string KnownDamage = "known-damage";
    const string Previous = ".previous";

    // A power cut and the next boot are further apart than that.
    static readonly TimeSpan _clocksMargin = TimeSpan.FromSeconds(5);

    readonly RootFolder _lasting = new(folder);
    readonly RootFolder _boot = new(ofThisBoot);

    public ImmutableArray<Home> Homes() => [.. _lasting.Each("home-", ".json", ReadHome)];

    public void Keep(Home home)
    {
        _lasting.Make();
        _lasting.Replace(HomeOf(home.Gpu), file => JsonSerializer.Serialize(file, home, Json.Default.Home));
    }

    public void Forget(PciAddress gpu) => RootFolder.Delete(HomeOf(gpu));

    public ImmutableArray<Lease> Leases() => [.. Records().OfType<Lease>()];

    public ImmutableArray<DamagedLease> Damaged() => [.. Records().OfType<DamagedLease>()];

    public bool IsKnown(DamagedLease damaged) => _boot.Lines(KnownDamage).Contains(damaged.What);

    public void Know(DamagedLease damaged)
    {
        _boot.Make();
        // What is mended meanwhile, and damaged anew, is news again.
        var known = Damaged().Where(d => d == damaged || IsKnown(d)).Select(d => d.What);
        _boot.Replace(Path.Combine(ofThisBoot, KnownDamage), file => file.Write(Encoding.UTF8.GetBytes(string.Concat(known.Select(what => what + "\n")))));
    }

    public bool IsTold(PciAddress gpu, string what) => Told(gpu).Contains(OneLine(what));

    public void KeepTold(PciAddress gpu, string what)
    {
        _boot.Make();
        // What has a number in it that changes each time must not fill the memory.
        var told = Told(gpu).Append(OneLine(what)).TakeLast(MostTold).ToList();
        _boot.Replace(ToldOf(gpu), file => file.Write(Encoding.UTF8.GetBytes(string.Concat(told.Select(line => line + "\n")))));
    }

    string[] Told(PciAddress gpu) => _boot.Lines(Path.GetFileName(ToldOf(gpu)));

    static string OneLine(string what) => what.ReplaceLineEndings(" ");

    IReadOnlyList<object> Records() => _lasting.Each("lease-", ".json", object? (path) =>
    {
        try
        {
            return ReadLease(path);
        }
        catch (LedgerRefused refused)
        {
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
            // File.GetLastWriteTimeUtc gives the year 1601 for a file that is gone.
            return File.GetLastWriteTimeUtc(path) is { Year: > 1601 } written && written < boot - _clocksMargin;
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
        // Put in place with its first line: it is never seen without one, and never missing where there was one before.
        FileJournal? journal = null;
        _lasting.Replace(path, path + Previous, file =>
        {
            journal = new FileJournal(path, file);
            journal.Opens(plan);
        });
        return journal!;
    }

    public ImmutableArray<Unfinished> Unfinished() =>
    [
        .. _lasting.Each("journal-", "", path => path.EndsWith(Previous, StringComparison.Ordinal) ? null : ReadJournal(path)),
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
        catch (Exception e) when (RootFolder.IsGone(e))
        {
            // Another run's diary is in its place by now, or the place is empty: closed enough.
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw RootFolder.Unwritable(run.Source, e);
        }
    }

    public ImmutableArray<Wedge> Wedges() => [.. _boot.Each("wedged-", ".json", ReadWedge)];

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
        catch (Exception e) when (RootFolder.IsTrouble(e))
        {
            throw RootFolder.Unreadable(path, e);
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
        catch (Exception e) when (RootFolder.IsTrouble(e))
        {
            throw RootFolder.Unreadable(path, e);
        }
    }

    static LedgerRefused Unreadable(string path, long line, string what, string why, string without, Exception? cause = null) => new(
        $"{path}, line {line}: {what} cannot be read: {why}",
        $"look at it; if it is of no use, remove it: sudo rm '{path}' ({without})",
        cause);
}
