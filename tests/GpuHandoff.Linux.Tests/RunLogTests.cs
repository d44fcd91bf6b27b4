using System.Net.Sockets;
using System.Text;

namespace GpuHandoff.Linux.Tests;

public sealed class RunLogTests : IDisposable
{
    const UnixFileMode Ours = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    string Path => _folder["run.log"];

    RunLog Open() => RunLog.Open(Path, _folder["no-socket"]);

    [Fact]
    public void Each_line_is_in_the_file_at_once_with_its_time_and_process_and_only_its_owner_may_read_it()
    {
        using var log = Open();
        log.Line(Weight.Info, "hand the card over");
        log.Line(Weight.Warning, "two lines\nof a program");

        var lines = File.ReadAllLines(Path);
        lines.Length.ShouldBe(3);
        lines[0].ShouldMatch($@"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ \[{Environment.ProcessId}\] hand the card over$");
        lines[2].ShouldEndWith("]   of a program", Case.Sensitive, "what a program adds to a line is no message of ours");
        File.GetUnixFileMode(Path).ShouldBe(Ours);
        log.Trouble.ShouldBeNull();
        log.ToDisk();
    }

    [Fact]
    public void A_later_run_writes_behind_an_earlier_one()
    {
        for (var run = 1; run <= 2; run++)
        {
            using var log = Open();
            log.Line(Weight.Info, $"run {run}");
        }
        File.ReadAllLines(Path).Select(l => l[^1]).ShouldBe(['1', '2']);
    }

    [Fact]
    public void A_long_log_is_begun_anew_and_the_old_one_kept_once()
    {
        File.WriteAllText(Path, new string('x', (int)RunLog.Longest), Encoding.ASCII);
        File.WriteAllText(Path + ".1", "older");
        using (var log = Open())
            log.Line(Weight.Info, "new");
        File.ReadAllLines(Path).ShouldHaveSingleItem().ShouldEndWith("new");
        new FileInfo(Path + ".1").Length.ShouldBe(RunLog.Longest);
    }

    [Fact]
    public void A_symbolic_link_is_not_followed()
    {
        File.WriteAllText(_folder["victim"], "precious");
        File.CreateSymbolicLink(Path, _folder["victim"]);
        using var log = Open();
        log.Line(Weight.Info, "to nobody");
        log.Trouble.ShouldNotBeNull().ShouldContain("symbolic link");
        File.ReadAllText(_folder["victim"]).ShouldBe("precious");
    }

    [Fact]
    public void A_folder_a_pipe_or_no_folder_at_all_is_told_and_nothing_is_waited_for()
    {
        using var nowhere = RunLog.Open(_folder["no/such/folder.log"], _folder["no-socket"]);
        nowhere.Line(Weight.Info, "lost");
        nowhere.ToDisk();
        nowhere.Trouble.ShouldNotBeNull().ShouldContain("ENOENT");

        Directory.CreateDirectory(Path);
        using var folder = Open();
        folder.Trouble.ShouldNotBeNull();

        System.Diagnostics.Process.Start("mkfifo", [_folder["pipe"]]).WaitForExit();
        using var pipe = RunLog.Open(_folder["pipe"], _folder["no-socket"]);
        pipe.Line(Weight.Info, "nobody reads");
        pipe.Trouble.ShouldNotBeNull();
    }

    [Fact]
    public void Every_line_goes_to_systemds_journal_with_its_weight()
    {
        using var journal = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        journal.Bind(new UnixDomainSocketEndPoint(_folder["journal"]));
        journal.ReceiveTimeout = 5000;
        // Even where there is no file.
        using var log = RunLog.Open(_folder["no/such/folder.log"], _folder["journal"]);
        log.Line(Weight.Error, "failed: it");

        var bytes = new byte[1000];
        var fields = Encoding.UTF8.GetString(bytes, 0, journal.Receive(bytes)).Split('\n');
        fields.ShouldBe(["PRIORITY=3", "SYSLOG_IDENTIFIER=gpu-handoff", "MESSAGE=failed: it", ""]);
    }

    [Fact]
    public void Words_of_others_reach_neither_the_file_nor_the_journal_as_commands_or_lines_of_ours()
    {
        using var journal = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        journal.Bind(new UnixDomainSocketEndPoint(_folder["journal"]));
        journal.ReceiveTimeout = 5000;
        using var log = RunLog.Open(Path, _folder["journal"]);
        log.Line(Weight.Error, "docker: \e[2J\rdone\nPRIORITY=0\u202e");

        File.ReadAllLines(Path).Select(line => line[(line.IndexOf(']') + 2)..]).ShouldBe([@"docker: \x1b[2J\x0ddone", @"  PRIORITY=0\u202e"]);
        var bytes = new byte[1000];
        Encoding.UTF8.GetString(bytes, 0, journal.Receive(bytes)).Split('\n')[2..].ShouldBe([@"MESSAGE=docker: \x1b[2J\x0ddone", ""]);
        Encoding.UTF8.GetString(bytes, 0, journal.Receive(bytes)).Split('\n').ShouldBe(["PRIORITY=3", "SYSLOG_IDENTIFIER=gpu-handoff", @"MESSAGE=  PRIORITY=0\u202e", ""]);
    }

    [Fact]
    public void A_journal_that_reads_nothing_is_not_waited_for()
    {
        using var journal = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        journal.Bind(new UnixDomainSocketEndPoint(_folder["journal"]));
        using var log = RunLog.Open(Path, _folder["journal"]);
        for (var line = 0; line < 5000; line++)
            log.Line(Weight.Info, $"line {line}");
        File.ReadAllLines(Path).Length.ShouldBe(5000);
    }
}
