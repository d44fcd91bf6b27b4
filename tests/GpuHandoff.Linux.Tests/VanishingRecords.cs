using System.Collections.Concurrent;
using System.Collections.Immutable;
using System.Reflection;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Steps;

namespace GpuHandoff.Linux.Tests;

/// <summary>Two runs at once: what one of them ends and begins while the other looks is there or not there, whole, and never trouble.</summary>
public sealed class VanishingRecords : IDisposable
{
    static readonly PciAddress _gpu = new(0, 1, 0, 0);

    static readonly Home _home = new("boot-1", _gpu, [new(_gpu, new("nvidia"))], [], []);

    static readonly Lease _lease = new("boot-1", _gpu, new(VmManager.Proxmox, "101"), _home.Functions, TimeSpan.FromSeconds(12));

    static readonly Plan _plan = new(Target.Vfio, [_gpu], "a plan", [new("bind", [new Rebind(_gpu, new("nvidia"), Owner.VfioKept)])]) { BootId = "boot-1" };

    readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    FileLedger Ledger => new(_folder["state"], _folder["run"]);

    public static TheoryData<string> Looks() => [.. typeof(ILedger).GetMethods().Where(IsLook).Select(m => m.Name)];

    static bool IsLook(MethodInfo method) => method.ReturnType != typeof(void) && !method.ReturnType.IsAssignableTo(typeof(IJournal));

    static object? Look(ILedger ledger, MethodInfo look) => look.Invoke(ledger, BindingFlags.DoNotWrapExceptions, null,
        [.. look.GetParameters().Select(Argument)], null);

    static object Argument(ParameterInfo parameter) => parameter.ParameterType switch
    {
        var type when type == typeof(PciAddress) => _gpu,
        var type when type == typeof(DamagedLease) => new DamagedLease(_gpu, "what", "hint"),
        var type when type == typeof(string) => "what",
        var type => throw new InvalidOperationException($"a new way to look at the ledger takes a {type}: say here what it is asked with"),
    };

    // A link that leads nowhere is listed, and the open says ENOENT: what a reader meets whose file is deleted in between.
    [Theory]
    [MemberData(nameof(Looks))]
    public void A_file_that_is_gone_when_it_is_opened_was_not_there(string look)
    {
        foreach (var (folder, name) in new[]
        {
            ("state", $"home-{_gpu}.json"), ("state", $"lease-{_gpu}.json"), ("state", $"journal-{_gpu}"),
            ("run", $"wedged-{_gpu}.json"), ("run", $"told-{_gpu}"), ("run", "known-damage"),
        })
        {
            Directory.CreateDirectory(_folder[folder], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            File.CreateSymbolicLink(_folder[$"{folder}/{name}"], "gone");
        }

        var seen = Look(Ledger, typeof(ILedger).GetMethod(look).ShouldNotBeNull());

        (seen is System.Collections.IEnumerable many ? many.Cast<object>().Any() : seen).ShouldBe(false);
    }

    [Fact]
    public void So_was_what_a_vm_was_given_and_what_the_hook_glances_at()
    {
        Directory.CreateDirectory(_folder["state"], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        File.CreateSymbolicLink(_folder["state/attach-101.json"], "gone");
        File.CreateSymbolicLink(_folder[$"state/lease-{_gpu}.json"], "gone");

        new FileAttachments(_folder["state"]).All().ShouldBeEmpty();
        Glance.MayBeLent(_folder["state"], "101").ShouldBeFalse();
    }

    [Theory]
    [MemberData(nameof(Looks))]
    public void What_may_not_be_read_is_trouble_still(string look)
    {
        // A folder in a file's place is passed over, and a link that leads to itself cannot be opened at all (ELOOP).
        foreach (var (folder, name) in new[]
        {
            ("state", $"home-{_gpu}.json"), ("state", $"lease-{_gpu}.json"), ("state", $"journal-{_gpu}"),
            ("run", $"wedged-{_gpu}.json"), ("run", $"told-{_gpu}"), ("run", "known-damage"),
        })
        {
            Directory.CreateDirectory(_folder[folder], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            File.CreateSymbolicLink(_folder[$"{folder}/{name}"], name);
        }

        var looking = () => Look(Ledger, typeof(ILedger).GetMethod(look).ShouldNotBeNull());

        // One damaged lease hides no other: it is told as such.
        if (look == nameof(ILedger.Leases))
            Ledger.Damaged().ShouldHaveSingleItem().Gpu.ShouldBe(_gpu);
        else if (look == nameof(ILedger.Damaged))
            ((ImmutableArray<DamagedLease>)looking()!).ShouldHaveSingleItem();
        else
            Should.Throw<LedgerRefused>(looking);
    }

    [Fact]
    public async Task A_reader_while_another_run_works_meets_no_trouble_and_never_half_a_journal_or_none()
    {
        const int rounds = 300;
        Ledger.Open(_plan).Dispose();
        var (troubles, missed, looked, done) = (new ConcurrentQueue<Exception>(), 0, 0, false);
        var all = typeof(ILedger).GetMethods().Where(IsLook).ToList();
        var lookers = Enumerable.Range(0, 2).Select(_ => Task.Run(() =>
        {
            while (!Volatile.Read(ref done))
            {
                foreach (var look in all)
                {
                    try
                    {
                        var seen = Look(Ledger, look);
                        // From the first plan to the last one there is always a run that has not written its end.
                        if (seen is ImmutableArray<Unfinished> { IsEmpty: true })
                            Interlocked.Increment(ref missed);
                        Interlocked.Increment(ref looked);
                    }
                    catch (Exception trouble)
                    {
                        troubles.Enqueue(trouble);
                    }
                }
            }
        })).ToList();
        try
        {
            for (var round = 0; round < rounds; round++)
            {
                using (var journal = Ledger.Open(_plan))
                {
                    Ledger.Keep(_home);
                    Ledger.Lend(_lease);
                    journal.Begins(0);
                    Ledger.KeepTold(_gpu, $"{round}");
                    Ledger.Know(new(_gpu, "what", "hint"));
                    Ledger.Mark(new("boot-1", _gpu, "write", TimeSpan.Zero, null, []));
                }
                Ledger.Unmark(_gpu);
                Ledger.EndLease(_gpu);
                Ledger.Forget(_gpu);
            }
        }
        finally
        {
            Volatile.Write(ref done, true);
            await Task.WhenAll(lookers);
        }
        troubles.Select(t => t.ToString()).Distinct().ShouldBeEmpty();
        missed.ShouldBe(0);
        looked.ShouldBeGreaterThan(rounds, "one who looks once in a while shows nothing");
    }

    [Fact]
    public async Task Two_who_write_the_same_record_at_once_both_succeed()
    {
        var writers = Enumerable.Range(0, 4).Select(who => Task.Run(() =>
        {
            for (var time = 0; time < 100; time++)
            {
                Ledger.Lend(_lease with { Failures = who, Ready = TimeSpan.FromSeconds(time) });
                Ledger.KeepTold(_gpu, $"{who} {time}");
            }
        })).ToList();
        await Task.WhenAll(writers);
        Ledger.Damaged().ShouldBeEmpty();
        Ledger.Leases().ShouldHaveSingleItem().Ready.ShouldBe(TimeSpan.FromSeconds(99));
        Directory.GetFiles(_folder["state"]).Select(Path.GetFileName).ShouldBe([$"lease-{_gpu}.json"]);
        Directory.GetFiles(_folder["run"]).Select(Path.GetFileName).ShouldBe([$"told-{_gpu}"]);
    }

    [Fact]
    public void What_a_killed_writer_left_is_no_record_and_goes_with_the_next_write()
    {
        Ledger.Keep(_home);
        using var ended = System.Diagnostics.Process.Start("/bin/true");
        ended.WaitForExit();
        string[] left = [$"home-{_gpu}.json.{ended.Id}-1.new", $"journal-{_gpu}.{ended.Id}-2.new", $"journal-{_gpu}.previous.{ended.Id}-3.new"];
        var alive = $"home-{_gpu}.json.{Environment.ProcessId}-9999999.new";
        foreach (var name in left.Append(alive))
            File.WriteAllText(_folder[$"state/{name}"], "{");

        Ledger.Homes().ShouldHaveSingleItem();
        Ledger.Unfinished().ShouldBeEmpty();
        Ledger.Keep(_home);

        Directory.GetFiles(_folder["state"]).Select(Path.GetFileName).Order(StringComparer.Ordinal).ShouldBe([$"home-{_gpu}.json", alive]);
    }

    [Fact]
    public void The_journal_before_is_kept_also_where_a_run_was_killed_between_keeping_it_and_its_own()
    {
        using (var first = Ledger.Open(_plan))
            first.Begins(0);
        var (journal, previous) = (_folder[$"state/journal-{_gpu}"], _folder[$"state/journal-{_gpu}.previous"]);
        File.Copy(journal, previous);

        using (Ledger.Open(_plan with { Summary = "the next" }))
        {
            File.ReadAllLines(previous)[^1].ShouldBe("{\"begins\":0}");
            File.ReadAllLines(journal).ShouldHaveSingleItem().ShouldContain("the next");
        }
        Directory.GetFiles(_folder["state"]).Length.ShouldBe(2);
    }
}
