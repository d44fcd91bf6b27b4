using System.Runtime.InteropServices;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;
using Microsoft.Win32.SafeHandles;

namespace GpuHandoff.Linux.Tests;

/// <summary>The search for a device's users in the real /proc; this process plays the user.</summary>
public class HoldersTests
{
    readonly LinuxKernel _kernel = new(hand: null);

    GpuUser? Ourselves(string device)
    {
        var node = new NamedNode(device, _kernel.NodeAt(new(device)).ShouldNotBeNull());
        var machine = new Machine("", "") { Nodes = [node], Modules = [new("nvidia", ModuleState.Loaded, RefCount: 1, [])] };
        Holders.AreDue(machine).ShouldBeTrue();
        return Holders.Find(machine, _kernel).Users.SingleOrDefault(u => u.Pid == Environment.ProcessId);
    }

    [Fact]
    public void An_open_device_is_found_with_all_that_is_known_of_its_user()
    {
        using var open = File.OpenHandle("/dev/full");
        var user = Ourselves("/dev/full").ShouldNotBeNull();
        user.Path.ShouldBe("/dev/full");
        user.Command.ShouldBe(File.ReadAllText("/proc/self/comm").TrimEnd());
        user.Of.User.ShouldBe(Environment.UserName);
        user.Started.ShouldBeGreaterThan(0ul);
        user.Apart.ShouldBeFalse();
        user.Mapped.ShouldBeFalse();
    }

    [Fact]
    public void A_device_that_we_do_not_have_open_has_not_us_for_a_user() => Ourselves("/dev/full").ShouldBeNull();

    [Fact]
    public void A_mapping_counts_after_its_descriptor_is_closed()
    {
        // Only root may follow map_files (fs/proc/base.c:proc_map_files_get_link).
        if (!RootUser.IsUs())
            return;
        nint address;
        using (var open = File.OpenHandle("/dev/zero"))
        {
            address = Map(0, MappedLength, ReadOnly, Private, open, 0);
            address.ShouldNotBe(-1);
        }
        try
        {
            var user = Ourselves("/dev/zero").ShouldNotBeNull();
            user.Path.ShouldBe("/dev/zero");
            user.Mapped.ShouldBeTrue();
        }
        finally
        {
            Unmap(address, MappedLength).ShouldBe(0);
        }
        Ourselves("/dev/zero").ShouldBeNull();
    }

    [Fact]
    public void The_devices_of_a_folder_are_those_that_are_found_one_by_one()
    {
        using var open = File.OpenHandle("/dev/full");
        var folder = new SysPath("/proc/self/fd");
        var nodes = _kernel.NodesIn(folder);
        nodes.ShouldContain(n => n.Node.IsSameDevice(_kernel.NodeAt(new("/dev/full"))!));
        foreach (var (path, node) in nodes)
            _kernel.NodeAt(new(path)).ShouldBe(node);
        _kernel.NodesIn(new("/proc/self/nosuch")).ShouldBeEmpty();
        _kernel.NodesIn(new("/proc/self/comm")).ShouldBeEmpty();
    }

    [Fact]
    public void Every_look_is_made_once()
    {
        var made = new int[1000];
        _kernel.Look(made.Length, i => Interlocked.Increment(ref made[i])).ShouldBeEmpty();
        made.ShouldAllBe(times => times == 1);
    }

    [Fact]
    public void A_look_that_does_not_end_is_left_behind_and_told()
    {
        using var never = new ManualResetEventSlim();
        var made = new int[100];
        var began = _kernel.Uptime;
        _kernel.Look(made.Length, i =>
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
        _kernel.Look(100, _ => never.Wait()).Order().ShouldBe(Enumerable.Range(0, 100));
        never.Set();
    }

    [Fact]
    public void What_a_look_is_refused_the_caller_hears() => Should.Throw<KernelRefused>(() =>
        _kernel.Look(10, i => throw new KernelRefused($"look {i}", Errno.InputOutput, "no"))).Errno.ShouldBe(Errno.InputOutput);

    [Fact]
    public void A_process_that_is_closed_to_us_is_no_error()
    {
        foreach (var name in _kernel.List(Sys.Proc).Where(name => int.TryParse(name, out _)))
            Should.NotThrow(() => _kernel.Read(Sys.Proc / name / "maps"));
    }

    const nint MappedLength = 4096;
    const int ReadOnly = 1;
    const int Private = 2;

    [DllImport("libc", EntryPoint = "mmap")]
    static extern nint Map(nint address, nint length, int protection, int flags, SafeFileHandle file, nint offset);

    [DllImport("libc", EntryPoint = "munmap")]
    static extern int Unmap(nint address, nint length);
}
