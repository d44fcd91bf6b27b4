using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Steps;
using GpuHandoff.Tests;
using Xunit.Abstractions;

namespace GpuHandoff.Linux.Tests;

/// <summary>
/// The ledger's files with malformed bytes: what is read is whole, or it is told with its file and its line; nothing is
/// written. GARBAGE_SEED plays a seed again.
/// </summary>
public sealed class DamagedRecords(ITestOutputHelper output) : IDisposable
{
    const int Times = 1500;

    static readonly PciAddress _gpu = new(0, 1, 0, 0);

    static readonly int _first =
        int.TryParse(Environment.GetEnvironmentVariable("GARBAGE_SEED"), out var seed) ? seed : 1;

    static readonly Home _home = new(
        "boot-1", _gpu, [new(_gpu, new("nvidia")), new(_gpu with { Function = 1 }, new("snd_hda_intel", "none"))],
        [new("nvidia_drm", ["modeset=Y", "fbdev=Y"])], [new("/dev/nvidia0", new(195, 0, 0x1b6, 0, 44))]);

    readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    FileLedger Ledger => new(_folder["state"], _folder["run"]);

    [Fact]
    public void A_damaged_home_is_told_or_whole()
    {
        Ledger.Keep(_home);
        Damage("home-*", () => Ledger.Homes().Sum(home =>
            home.Functions.Sum(f => f.Function.Bus + f.Owner.ToString().Length) + home.Modules.Sum(m => m.Name.Length + m.Parameters.Sum(p => p.Length))
            + home.Nodes.Sum(n => n.Path.Length + (int)n.Node.Major) + home.BootId.Length + (home.Of(_gpu)?.Driver?.Length ?? 0)));
    }

    [Fact]
    public void A_damaged_journal_is_told_or_whole()
    {
        var plan = new Plan(Target.Vfio, [_gpu], "a plan",
            [
                new("release", [new UnloadModule("nvidia_drm", ["modeset=Y"]), new UnloadDriver("nvidia", [], [new(_gpu, new("nvidia"))])]),
                new("bind", [new Rebind(_gpu, new("nvidia"), Owner.VfioKept), new MakeNodes(_home.Nodes)]),
            ])
        {
            Keep = [_home],
        };
        using (var journal = Ledger.Open(plan))
        {
            journal.Begins(0);
            journal.Ends(0);
            journal.Begins(1);
            journal.Undone(1);
        }
        Damage("journal-*", () => Ledger.Unfinished().Sum(run =>
        {
            var steps = run.Plan.Steps().ToList();
            return run.Begun.Sum(b => (steps[b].Undo()?.Say() ?? steps[b].SayNoUndo()).Length) + run.Plan.Keep.Sum(h => h.Functions.Length) + run.Plan.Summary.Length;
        }));
    }

    [Fact]
    public void A_damaged_mark_of_a_stuck_card_is_told_or_whole()
    {
        Ledger.Mark(new("boot-1", _gpu, "write", TimeSpan.FromSeconds(12), null, ["undone"]));
        Damage("wedged-*", () => Ledger.Wedges().Sum(w => w.NotUndone.Sum(n => n.Length) + w.Call.Length + w.Gpu.Bus));
    }

    [Fact]
    public void A_damaged_lease_is_told_or_whole()
    {
        Ledger.Lend(new("boot-1", _gpu, new(VmManager.Proxmox, "101"), _home.Functions, TimeSpan.FromSeconds(12)) { Qemu = new(4711, 12), Pinned = ["CPU 0 on 4"] });
        Damage("lease-*", () => Ledger.Damaged() is [var damaged]
            ? throw new LedgerRefused(damaged.What, damaged.Hint)
            : Ledger.Leases().ShouldHaveSingleItem() is var l
                ? l.Guest.ToString().Length + l.Functions.Sum(f => f.Function.Bus + f.Owner.ToString().Length) + l.Pinned.Sum(p => p.Length) + (l.Qemu?.Pid ?? 0) % 7
                : 0);
    }

    [Fact]
    public void Neither_depth_nor_length_brings_a_reader_down()
    {
        Ledger.Keep(_home);
        var path = Directory.GetFiles(_folder["state"], "home-*").Single();
        foreach (var text in new[] { new string('[', 200_000), string.Concat(Enumerable.Repeat("{\"a\":", 100_000)), new string(' ', 4_000_000), new string('\0', 100_000) })
        {
            File.WriteAllText(path, text);
            Should.Throw<LedgerRefused>(() => Ledger.Homes()).Message.ShouldContain($"{path}, line ");
        }
    }

    void Damage(string files, Func<int> read)
    {
        output.WriteLine($"GARBAGE_SEED={_first}");
        var path = Directory.GetFiles(_folder.Path, files, SearchOption.AllDirectories).Single();
        var whole = File.ReadAllText(path);
        read();
        var told = 0;
        for (var seed = _first; seed < _first + Times; seed++)
        {
            var before = new Malformed(seed).BytesOf(whole);
            File.WriteAllBytes(path, before);
            try
            {
                read();
            }
            catch (LedgerRefused refused)
            {
                told++;
                refused.Message.ShouldContain($"{path}, line ");
                refused.Hint.ShouldContain("rm");
            }
            catch (Exception e)
            {
                throw new InvalidOperationException($"GARBAGE_SEED={seed}: crashed on {System.Text.Encoding.Latin1.GetString(before)}", e);
            }
            File.ReadAllBytes(path).ShouldBe(before, $"GARBAGE_SEED={seed}");
        }
        told.ShouldBeGreaterThan(Times / 4, "a damage that nobody notices shows nothing");
    }
}
