using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;
using Microsoft.Win32.SafeHandles;
using static GpuHandoff.Linux.Tests.Mmap;

namespace GpuHandoff.Linux.Tests;

/// <summary>Alone: it measures what the whole process allocates, and has thousands of files open.</summary>
[Collection(Alone)]
public class HoldersMemoryTests
{
    public const string Alone = "alone";

    readonly LinuxKernel _kernel = new(hand: null);

    GpuUser? Ourselves(string device)
    {
        var node = new NamedNode(device, _kernel.NodeAt(new(device)).ShouldNotBeNull());
        var machine = new Machine("", "") { Nodes = [node], Modules = [new("nvidia", ModuleState.Loaded, RefCount: 1, [])] };
        return Holders.Find(machine, _kernel).Users.SingleOrDefault(u => u.Pid == Environment.ProcessId);
    }

    [Fact]
    public void The_memory_of_a_search_is_bounded_whatever_a_process_has_open_and_mapped()
    {
        const int descriptors = 5_000;
        const int mappings = 30_000;
        var files = new List<SafeFileHandle>();
        var maps = new List<nint>();
        try
        {
            for (var i = 0; i < descriptors; i++)
                files.Add(File.OpenHandle("/dev/full"));
            // Every second page of one file, so that the kernel cannot join them.
            using var zero = File.OpenHandle("/dev/zero");
            for (var i = 0; i < mappings && Map(0, MappedLength, i % 2 == 0 ? ReadOnly : 0, Private, zero, 0) is > 0 and var at; i++)
                maps.Add(at);
            maps.Count.ShouldBeGreaterThan(mappings / 2);
            Ourselves("/dev/full").ShouldNotBeNull();
            var before = GC.GetTotalAllocatedBytes(precise: true);
            Ourselves("/dev/full").ShouldNotBeNull();
            var allocated = GC.GetTotalAllocatedBytes(precise: true) - before;
            // As a whole the text of the mappings alone would be 3 MB, and again as a string of twice the size; one object for each
            // descriptor would be as much. What grows with the descriptors is their numbers and flags, read and dropped one by one.
            GC.Collect();
            var held = GC.GetTotalMemory(forceFullCollection: true);
            Ourselves("/dev/full").ShouldNotBeNull();
            (GC.GetTotalMemory(forceFullCollection: true) - held).ShouldBeLessThan(2_000_000);
            allocated.ShouldBeLessThan(descriptors * 4_000L);
        }
        finally
        {
            files.ForEach(f => f.Dispose());
            maps.ForEach(m => Unmap(m, MappedLength).ShouldBe(0));
        }
    }

    [Fact]
    public void Every_look_is_made_once()
    {
        var made = new int[1000];
        _kernel.Look(made.Length, (i, _) => Interlocked.Increment(ref made[i])).ShouldBeEmpty();
        made.ShouldAllBe(times => times == 1);
    }

    [Fact]
    public void A_look_that_does_not_end_is_left_behind_and_told()
    {
        using var never = new ManualResetEventSlim();
        var made = new int[100];
        var began = _kernel.Uptime;
        _kernel.Look(made.Length, (i, _) =>
        {
            if (i is 7 or 60)
                never.Wait();
            made[i]++;
        }).ShouldBe([7, 60], ignoreOrder: true);
        (_kernel.Uptime - began).ShouldBeLessThan(TimeSpan.FromSeconds(5));
        made.Sum().ShouldBe(98);
        never.Set();
    }

    [Fact]
    public void Where_very_many_looks_do_not_end_the_rest_is_given_up()
    {
        using var never = new ManualResetEventSlim();
        _kernel.Look(100, (_, _) => never.Wait()).Order().ShouldBe(Enumerable.Range(0, 100));
        never.Set();
    }

    [Fact]
    public void What_a_look_is_refused_the_caller_hears() => Should.Throw<KernelRefused>(() =>
        _kernel.Look(10, (i, _) => throw new KernelRefused($"look {i}", Errno.InputOutput, "no"))).Errno.ShouldBe(Errno.InputOutput);

    [Fact]
    public void A_process_that_is_closed_to_us_is_no_error()
    {
        foreach (var name in _kernel.List(Sys.Proc).Where(name => int.TryParse(name, out _)))
            Should.NotThrow(() => _kernel.Read(Sys.Proc / name / "maps"));
    }
}

[CollectionDefinition(HoldersMemoryTests.Alone, DisableParallelization = true)]
public sealed class AloneTests;
