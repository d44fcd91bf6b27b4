using System.Runtime.InteropServices;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;
using static GpuHandoff.Linux.Tests.Mmap;

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
    public void The_devices_of_a_table_are_those_that_are_found_one_by_one_each_with_its_descriptors()
    {
        using var open = File.OpenHandle("/dev/full");
        using var again = File.OpenHandle("/dev/full");
        var nodes = _kernel.OpenIn(new("/proc/self/fd"), (_, _) => true, Looking.Alone);
        foreach (var open1 in nodes)
            _kernel.NodeAt(new(open1.Path)).ShouldBe(open1.Node);
        var full = _kernel.NodeAt(new("/dev/full"))!;
        nodes.Where(n => n.Node.IsSameDevice(full)).ShouldHaveSingleItem().Count.ShouldBe(2);
        _kernel.OpenIn(new("/proc/self/fd"), (major, minor) => (major, minor) != (full.Major, full.Minor), Looking.Alone)
            .ShouldNotContain(n => n.Node.IsSameDevice(full));
        _kernel.OpenIn(new("/proc/self/nosuch"), (_, _) => true, Looking.Alone).ShouldBeEmpty();
        _kernel.OpenIn(new("/proc/self/comm"), (_, _) => true, Looking.Alone).ShouldBeEmpty();
    }

    [Fact]
    public void A_duplicate_leads_to_the_same_open_file_and_another_open_of_the_same_device_does_not()
    {
        using var open = File.OpenHandle("/dev/full");
        using var again = File.OpenHandle("/dev/full");
        var copy = DuplicateFile((int)open.DangerousGetHandle());
        try
        {
            SysPath Of(nint file) => new($"/proc/self/fd/{file}");
            _kernel.IsSameFile(Of(open.DangerousGetHandle()), Of(copy)).ShouldBeTrue();
            _kernel.IsSameFile(Of(open.DangerousGetHandle()), Of(again.DangerousGetHandle())).ShouldBeFalse();
            _kernel.IsSameFile(Of(open.DangerousGetHandle()), Of(999_999)).ShouldBeFalse();
            var found = _kernel.OpenIn(new("/proc/self/fd"), (major, minor) => (major, minor) == (1, 7), Looking.Alone).ShouldHaveSingleItem();
            found.Count.ShouldBe(3);
            OpenDevice.Files([found], _kernel).ShouldBe(2);
        }
        finally
        {
            CloseFile(copy).ShouldBe(0);
        }
    }

    [Fact]
    public void A_descriptor_that_was_opened_with_o_path_holds_nothing()
    {
        var path = OpenFile("/dev/full", OnlyAPath);
        path.ShouldBeGreaterThan(2);
        try
        {
            Ourselves("/dev/full").ShouldBeNull();
            using var open = File.OpenHandle("/dev/full");
            Ourselves("/dev/full").ShouldNotBeNull("a real one beside it counts");
        }
        finally
        {
            CloseFile(path).ShouldBe(0);
        }
    }

    [Fact]
    public void A_descriptor_in_a_threads_own_table_is_found_where_a_count_is_not_explained()
    {
        using var opened = new ManualResetEventSlim();
        using var seen = new ManualResetEventSlim();
        var thread = new Thread(() =>
        {
            Unshare(OwnFiles).ShouldBe(0);
            var file = OpenFile("/dev/full", 0);
            opened.Set();
            seen.Wait();
            _ = CloseFile(file);
        });
        thread.Start();
        opened.Wait();
        try
        {
            _kernel.OpenIn(new("/proc/self/fd"), (major, minor) => (major, minor) == (1, 7), Looking.Alone).ShouldBeEmpty();
            Ourselves("/dev/full").ShouldNotBeNull();
        }
        finally
        {
            seen.Set();
            thread.Join();
        }
    }

    [Theory]
    [InlineData("pos:\t0\nflags:\t02100002\nmnt_id:\t26\n", true)]
    [InlineData("pos:\t0\nflags:\t012000000\nmnt_id:\t26\n", false)]
    [InlineData("pos:\t0\nflags:\t010000000", false)]
    [InlineData("flags:\tx", true)]
    [InlineData("pos:\t0", true)]
    [InlineData(null, true)]
    public void Whether_a_descriptor_holds_its_file_is_in_its_flags_and_in_doubt_it_does(string? info, bool holds) =>
        OpenDevice.Holds(info).ShouldBe(holds);

    [Fact]
    public void A_file_is_read_by_its_lines_however_they_lie_on_the_pieces()
    {
        var file = Path.GetTempFileName();
        try
        {
            var lines = Enumerable.Range(0, 3000).Select(i => new string((char)('a' + i % 26), i * 7 % 400)).ToList();
            File.WriteAllText(file, string.Concat(lines.Select(l => l + "\n")));
            var read = new List<string>();
            _kernel.ReadLines(new(file), line => read.Add(line.ToString()), Looking.Alone).ShouldBeTrue();
            read.ShouldBe(lines);
            _kernel.ReadLines(new(file + ".no"), _ => throw new InvalidOperationException(), Looking.Alone).ShouldBeTrue();
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public void A_reader_that_is_given_up_stops_and_what_it_read_is_not_whole()
    {
        var (lines, looking) = (0, new GivenUpSoon());
        _kernel.ReadLines(new("/proc/kallsyms"), _ => lines++, looking).ShouldBeFalse();
        var all = 0;
        _kernel.ReadLines(new("/proc/kallsyms"), _ => all++, Looking.Alone);
        lines.ShouldBeLessThan(all);
    }

    sealed class GivenUpSoon : Looking
    {
        int _pieces;

        public override bool IsGivenUp => _pieces >= 2;

        public override void Proceeds() => _pieces++;
    }

    [Fact]
    public void A_look_that_goes_on_is_waited_for_beyond_the_patience_with_one_that_does_not()
    {
        var done = false;
        _kernel.Look(1, (_, looking) =>
        {
            for (var i = 0; i < 20; i++)
            {
                Thread.Sleep(50);
                looking.Proceeds();
            }
            done = true;
        }).ShouldBeEmpty();
        done.ShouldBeTrue();
    }

    const int OnlyAPath = 0x200000;
    const int OwnFiles = 0x400;

    [DllImport("libc", EntryPoint = "open", CharSet = CharSet.Ansi)]
    static extern int OpenFile([MarshalAs(UnmanagedType.LPUTF8Str)] string path, int flags);

    [DllImport("libc", EntryPoint = "close")]
    static extern int CloseFile(int file);

    [DllImport("libc", EntryPoint = "dup")]
    static extern int DuplicateFile(int file);

    [DllImport("libc", EntryPoint = "unshare")]
    static extern int Unshare(int flags);
}
