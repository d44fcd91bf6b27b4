using System.Diagnostics;
using GpuHandoff.Guests;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Linux.Tests;

/// <summary>Leases on disk, and the doors through which a VM is looked at, on the real kernel.</summary>
public sealed class LeaseTests : IDisposable
{
    static readonly PciAddress _gpu = new(0, 1, 0, 0);

    static readonly Lease _lease = new(
        "boot-1", _gpu, new(VmManager.Libvirt, "Wïn 11, \"new\""),
        [new(_gpu, new("nvidia")) { Power = new("auto", true) }, new(_gpu with { Function = 1 }, new(null, "none"))], TimeSpan.FromSeconds(12.345678))
    {
        Ready = TimeSpan.FromSeconds(95.5),
        Qemu = new(4711, 123456789),
        StartedBy = new(812, 4321),
        Pinned = ["CPU 0 on 4"],
        Failures = 2,
        Trouble = "it did not go",
        ExpectedBack = new("it is being rebooted", TimeSpan.FromSeconds(300.25)),
    };

    readonly TempFolder _folder = new();
    readonly LinuxKernel _kernel = new(hand: null);

    public void Dispose() => _folder.Dispose();

    FileLedger Ledger => new(_folder["state"], _folder["run"]);

    string Path => Directory.GetFiles(_folder["state"], "lease-*").Single();

    [Fact]
    public void A_lease_is_read_back_as_it_was()
    {
        Ledger.Leases().ShouldBeEmpty();
        Ledger.Lend(_lease);
        Ledger.Lend(_lease with { BootId = "boot-2" });

        var read = Ledger.Leases().ShouldHaveSingleItem();

        (read with { Functions = _lease.Functions, Pinned = _lease.Pinned }).ShouldBe(_lease with { BootId = "boot-2" });
        read.Functions.ShouldBe(_lease.Functions);
        read.Pinned.ShouldBe(_lease.Pinned);
        read.IsSameAs(_lease with { BootId = "boot-2" }).ShouldBeTrue("a newer hook must know it again");
        File.GetUnixFileMode(Path).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
        Ledger.EndLease(_gpu);
        Ledger.Leases().ShouldBeEmpty();
        Ledger.EndLease(_gpu);
    }

    [Theory]
    [InlineData("", 1, "JSON")]
    [InlineData("null", 1, "it is empty")]
    [InlineData("{\n\"bootId\":\"b\",\n\"gpu\":7}", 3, "JSON")]
    [InlineData("{\"bootId\":\"b\",\"gpu\":\"0000:01:00.0\",\"guest\":{\"manager\":\"proxmox\",\"id\":\"101\"},\"functions\":[],\"since\":\"00:00:12\",\"version\":2}", 1, "version 2")]
    [InlineData("{\"bootId\":\"b\",\"gpu\":\"0000:01:00.0\",\"guest\":{\"manager\":\"xen\",\"id\":\"101\"},\"functions\":[],\"since\":\"00:00:12\"}", 1, "JSON")]
    public void A_damaged_lease_is_named_with_its_line_the_reason_and_the_way_out(string text, int line, string why)
    {
        Ledger.Lend(_lease);
        File.WriteAllText(Path, text);

        var damaged = Ledger.Damaged().ShouldHaveSingleItem();

        Ledger.Leases().ShouldBeEmpty();
        damaged.Gpu.ShouldBe(_gpu);
        damaged.What.ShouldStartWith($"{Path}, line {line}: the record of whom a card is lent to cannot be read: ");
        damaged.What.ShouldContain(why);
        damaged.Hint.ShouldBe($"look at it; if it is of no use, remove it: sudo rm '{Path}' (the card then no longer counts as lent: hand it back by hand when its VM is off)");
    }

    [Fact]
    public void A_damaged_lease_hides_no_other_and_the_timer_learns_of_it_once()
    {
        var other = _lease with { Gpu = new(0, 2, 0, 0) };
        Ledger.Lend(_lease);
        Ledger.Lend(other);
        File.WriteAllText(_folder[$"state/lease-{_gpu}.json"], "{");
        File.WriteAllText(_folder["state/lease-of-whom.json"], "");

        Ledger.Leases().ShouldHaveSingleItem().Gpu.ShouldBe(other.Gpu);
        var damaged = Ledger.Damaged();
        damaged.Select(d => d.Gpu).ShouldBe([_gpu, null]);
        damaged[0].Concerns(_gpu with { Function = 1 }).ShouldBeTrue();
        damaged[0].Concerns(other.Gpu).ShouldBeFalse();

        damaged.Select(Ledger.IsKnown).ShouldBe([false, false]);
        Ledger.Know(damaged[0]);
        damaged.Select(Ledger.IsKnown).ShouldBe([true, false]);
        Ledger.Know(damaged[1]);
        damaged.Select(Ledger.IsKnown).ShouldBe([true, true]);
        Ledger.EndLease(_gpu);
        Ledger.Damaged().ShouldBe([damaged[1]]);
        Ledger.Know(damaged[1]);
        Ledger.IsKnown(damaged[0]).ShouldBeFalse("mended meanwhile, it is news again");
    }

    [Fact]
    public void A_damaged_lease_that_was_written_before_the_host_came_up_is_of_an_earlier_boot()
    {
        Ledger.Lend(_lease);
        File.WriteAllText(Path, "{");
        Ledger.Damaged().ShouldHaveSingleItem().IsOfEarlierBoot.ShouldBeFalse("it was written just now");
        var up = TimeSpan.FromSeconds(double.Parse(File.ReadAllText("/proc/uptime").Split(' ')[0], System.Globalization.CultureInfo.InvariantCulture));

        // No folder of this boot: it has lent nothing yet.
        (TimeSpan Ago, bool IsOld)[] ages = [(up + TimeSpan.FromMinutes(1), true), (up - TimeSpan.FromSeconds(1), false), (TimeSpan.FromHours(-1), false)];
        foreach (var (ago, isOld) in ages)
        {
            File.SetLastWriteTimeUtc(Path, DateTime.UtcNow - ago);
            Ledger.Damaged().ShouldHaveSingleItem().ShouldSatisfyAllConditions(
                d => d.IsOfEarlierBoot.ShouldBe(isOld, $"{ago} ago"), d => d.Concerns(_gpu).ShouldBe(!isOld));
        }
        File.Move(Path, _folder["state/lease-of-whom.json"]);
        File.SetLastWriteTimeUtc(_folder["state/lease-of-whom.json"], DateTime.UtcNow - up - TimeSpan.FromDays(1));
        Ledger.Damaged().ShouldHaveSingleItem().IsOfEarlierBoot.ShouldBeFalse("it cannot be removed by its card");
    }

    [Fact]
    public void What_was_told_of_a_card_is_news_again_after_its_lease()
    {
        Ledger.Lend(_lease);
        Ledger.IsTold(_gpu, "no\nroom").ShouldBeFalse();
        Ledger.KeepTold(_gpu, "no\nroom");
        Ledger.KeepTold(_gpu, "another");
        Ledger.IsTold(_gpu, "no\nroom").ShouldBeTrue();
        Ledger.IsTold(_gpu, "no").ShouldBeFalse();
        Ledger.IsTold(_gpu with { Bus = 2 }, "another").ShouldBeFalse();
        for (var i = 0; i < 40; i++)
            Ledger.KeepTold(_gpu, $"{i}");
        File.ReadAllLines(_folder[$"run/told-{_gpu}"]).Length.ShouldBe(16);
        Ledger.EndLease(_gpu);
        Ledger.IsTold(_gpu, "39").ShouldBeFalse();
    }

    [Fact]
    public void A_lease_of_an_older_program_is_read()
    {
        Ledger.Lend(_lease);
        File.WriteAllText(Path, """{"bootId":"b","gpu":"0000:01:00.0","guest":{"manager":"proxmox","id":"101"},"functions":[],"since":"00:00:12","version":1}""");
        Ledger.Damaged().ShouldBeEmpty();
        Ledger.Leases().ShouldHaveSingleItem().ShouldSatisfyAllConditions(l => l.ExpectedBack.ShouldBeNull(), l => l.StartedBy.ShouldBeNull(), l => l.Ready.ShouldBeNull(), l => l.Guest.Id.ShouldBe("101"));
    }

    [Fact]
    public void A_file_is_the_same_by_every_name_and_another_after_it_was_replaced()
    {
        File.WriteAllText(_folder["one"], "");
        File.CreateSymbolicLink(_folder["other"], "one");
        var identity = _kernel.IdentityOf(new(_folder["one"])).ShouldNotBeNull();

        _kernel.IdentityOf(new(_folder["other"])).ShouldBe(identity);
        (DateTimeOffset.UtcNow - identity.Modified).Duration().ShouldBeLessThan(TimeSpan.FromMinutes(1));
        _kernel.IdentityOf(new(_folder["none"])).ShouldBeNull();

        File.WriteAllText(_folder["new"], "");
        File.Move(_folder["new"], _folder["one"], overwrite: true);
        _kernel.IdentityOf(new(_folder["one"])).ShouldNotBeNull().Inode.ShouldNotBe(identity.Inode);
    }

    [Fact]
    public void A_lock_is_seen_with_its_holder_without_being_tried()
    {
        File.WriteAllText(_folder["lock"], "");
        HeldLocks.On(new(_folder["lock"]), _kernel).ShouldBeEmpty();
        // .NET opens with flock(2), alone for FileShare.None and shared for FileShare.Read.
        using (new FileStream(_folder["lock"], FileMode.Open, FileAccess.ReadWrite, FileShare.None))
            HeldLocks.On(new(_folder["lock"]), _kernel).ShouldBe([new(Environment.ProcessId, Alone: true)]);
        using (new FileStream(_folder["lock"], FileMode.Open, FileAccess.Read, FileShare.Read))
            HeldLocks.On(new(_folder["lock"]), _kernel).ShouldBe([new(Environment.ProcessId, Alone: false)]);
        HeldLocks.On(new(_folder["lock"]), _kernel).ShouldBeEmpty();
    }

    [Fact]
    public void The_clock_on_the_wall_follows_from_the_time_since_boot() =>
        (WallClock.Now(_kernel).ShouldNotBeNull() - DateTimeOffset.UtcNow).Duration().ShouldBeLessThan(TimeSpan.FromSeconds(3));

    [Fact]
    public async Task A_process_is_waited_for_until_its_end_and_no_longer_than_the_limit()
    {
        using var sleeps = Process.Start("/bin/sleep", "60");
        var started = ProcessStat.Of(sleeps.Id, _kernel).ShouldNotBeNull().Started;
        var clock = Stopwatch.StartNew();

        _kernel.AwaitEnd(sleeps.Id, started, TimeSpan.FromMilliseconds(300)).ShouldBeTrue();
        clock.Elapsed.ShouldBeGreaterThan(TimeSpan.FromMilliseconds(250));
        _kernel.AwaitEnd(sleeps.Id, started + 1, TimeSpan.FromSeconds(60)).ShouldBeFalse();

        var ends = Task.Run(async () =>
        {
            await Task.Delay(300);
            sleeps.Kill();
        });
        _kernel.AwaitEnd(sleeps.Id, started, TimeSpan.FromSeconds(60)).ShouldBeTrue();
        sleeps.WaitForExit();
        _kernel.AwaitEnd(sleeps.Id, started, TimeSpan.FromSeconds(60)).ShouldBeFalse("there is nothing to wait for, and who asks again at once would spin");

        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(30));
        await ends;
    }

    [Theory]
    [InlineData(VmManager.Proxmox, "101", "gpu-handoff-watch-proxmox:101-7.service")]
    [InlineData(VmManager.Libvirt, "101", "gpu-handoff-watch-libvirt:101-7.service")]
    [InlineData(VmManager.Libvirt, "win11_new.2-b", "gpu-handoff-watch-libvirt:win11_new.2-b-7.service")]
    [InlineData(VmManager.Libvirt, "wïn/11 @%i", @"gpu-handoff-watch-libvirt:w\xc3\xafn\x2f11\x20\x40\x25i-7.service")]
    public void A_watchs_unit_has_a_name_that_systemd_takes(VmManager manager, string vm, string unit) =>
        Watchdog.UnitOf(new(manager, vm), 7).ShouldBe(unit);

    [Fact]
    public void Even_the_longest_name_gives_one() =>
        Watchdog.UnitOf(new(VmManager.Libvirt, new('/', 255)), 4194304).Length.ShouldBeLessThan(256);
}
