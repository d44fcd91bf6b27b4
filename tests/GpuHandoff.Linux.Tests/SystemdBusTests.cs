using System.Buffers.Binary;
using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using GpuHandoff.Guests;

namespace GpuHandoff.Linux.Tests;

/// <summary>A systemd at a real socket, which says what the real one would. That the real one understands us is the lab's to show.</summary>
public sealed class SystemdBusTests : IDisposable
{
    const string Unit = "gpu-handoff-watch-proxmox:101-7.service";

    static readonly TimeSpan _plenty = TimeSpan.FromSeconds(20);
    static readonly TimeSpan _short = TimeSpan.FromMilliseconds(400);

    readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_property_is_heard_among_whatever_else_is_said()
    {
        using var systemd = Listen((client, _) =>
        {
            client.Send([.. JobRemoved("another.service", "failed"), .. Property(answers: 1, "stopping")[..30]]);
            Thread.Sleep(50);
            client.Send(Property(answers: 1, "stopping").AsSpan(30));
            Thread.Sleep(_plenty);
        });
        Ask(_plenty).ShouldBe("stopping");
    }

    [Fact]
    public void Another_calls_answer_is_not_ours()
    {
        using var systemd = Listen((client, _) => client.Send([.. Property(answers: 9, "stopping"), .. Property(answers: 1, "running")]));
        Ask(_plenty).ShouldBe("running");
    }

    [Fact]
    public void A_systemd_that_is_silent_is_not_waited_for_longer_than_said()
    {
        using var systemd = Listen((_, _) => Thread.Sleep(_plenty));
        var clock = Stopwatch.StartNew();
        Ask(_short).ShouldBeNull();
        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(5));
    }

    [Fact]
    public void Whoever_is_not_welcome_gets_no_answer()
    {
        using var systemd = Listen((_, _) => { }, welcome: "REJECTED EXTERNAL\r\n");
        Ask(_plenty).ShouldBeNull();
    }

    [Fact]
    public void What_is_no_message_is_no_answer()
    {
        using var systemd = Listen((client, _) => client.Send(Encoding.ASCII.GetBytes("HTTP/1.1 400 Bad Request, and what else there is to say\r\n")));
        Ask(_plenty).ShouldBeNull();
    }

    [Fact]
    public void Where_nobody_listens_there_is_no_systemd() => SystemdBus.To(_folder["socket"]).ShouldBeNull();

    [Fact]
    public void A_watch_that_systemd_has_started_is_no_trouble()
    {
        using var systemd = Listen((client, _) => client.Send([.. Taken(), .. JobRemoved("another.service", "failed"), .. JobRemoved(Unit, "done")]));
        Trouble(isSeenNowOrNever: true).ShouldBeNull();
    }

    // The result of a service of Type=exec whose program cannot be run.
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_watch_whose_program_cannot_be_run_is_told(bool isSeenNowOrNever)
    {
        using var systemd = Listen((client, _) => client.Send([.. Taken(), .. JobRemoved(Unit, "failed")]));
        var trouble = Trouble(isSeenNowOrNever).ShouldNotBeNull();
        trouble.ShouldStartWith("nobody watches over the VM: its start ended as \"failed\": journalctl -u gpu-handoff-watch-proxmox:101-7.service; ");
        trouble.ShouldEndWith("gpu-handoff-recover.timer brings the GPU home, or gpu-handoff reconcile by hand");
    }

    [Fact]
    public void A_watch_that_can_be_looked_at_later_is_not_waited_for()
    {
        using var systemd = Listen((client, _) =>
        {
            client.Send(Taken());
            Thread.Sleep(_plenty);
        });
        var clock = Stopwatch.StartNew();
        Trouble(isSeenNowOrNever: false).ShouldBeNull();
        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(3));
    }

    [Fact]
    public void What_systemd_refuses_is_told_in_its_own_words()
    {
        using var systemd = Listen((client, _) => client.Send(Refusal("Unit gpu-handoff-watch-proxmox:101-7.service was already loaded.")));
        Trouble(isSeenNowOrNever: true).ShouldNotBeNull().ShouldContain("nobody watches over the VM: Unit gpu-handoff-watch-proxmox:101-7.service was already loaded.;");
    }

    // systemd puts variables into the arguments of a service, and a domain of libvirt's may be called win$1.
    [Fact]
    public void An_argument_reaches_the_watch_as_it_is()
    {
        var heard = "";
        using var systemd = Listen((client, said) =>
        {
            heard = said;
            client.Send([.. Taken(), .. JobRemoved(Unit, "done")]);
        });
        Trouble(isSeenNowOrNever: true, "--watch=win$1${HOME}").ShouldBeNull();
        heard.ShouldContain("--watch=win$$1$${HOME}\0");
        heard.ShouldContain("/usr/sbin/gpu-handoff\0");
        heard.ShouldContain("StartTransientUnit\0");
    }

    [Fact]
    public void A_program_that_an_upgrade_has_replaced_is_taken_by_its_name()
    {
        var (program, link) = (_folder["gpu-handoff"], _folder["exe"]);
        File.CreateSymbolicLink(link, program + " (deleted)");
        Watchdog.Program(link).ShouldBeNull();
        File.WriteAllText(program, "");
        Watchdog.Program(link).ShouldBe(program);
        File.WriteAllText(program + " (deleted)", "");
        Watchdog.Program(link).ShouldBe(program + " (deleted)");
        Watchdog.Program(_folder["nowhere"]).ShouldBeNull();
    }

    [Fact]
    public void A_watch_that_does_not_run_is_missed_when_its_VM_does()
    {
        var guest = new Guest(VmManager.Proxmox, "101");
        Directory.CreateDirectory(Path.Combine(_folder["slice"], "gpu-handoff-watch-proxmox:1012-7.service"));
        Watchdog.Missing(guest, _folder["slice"]).ShouldNotBeNull().ShouldContain("nobody watches over the VM: there is no service gpu-handoff-watch-proxmox:101-*");
        // Another manager's VM of that name, one whose name begins so, and one of before the managers' names were in it.
        foreach (var other in new[] { "libvirt:101-7", "proxmox:101-8-7", "libvirt:proxmox:101-7", "101-7" })
            Directory.CreateDirectory(Path.Combine(_folder["slice"], $"gpu-handoff-watch-{other}.service"));
        Watchdog.Missing(guest, _folder["slice"]).ShouldNotBeNull();
        Directory.CreateDirectory(Path.Combine(_folder["slice"], Unit));
        Watchdog.Missing(guest, _folder["slice"]).ShouldBeNull();
        // Of the first kind of cgroups, or without systemd: nothing can be told.
        Watchdog.Missing(guest, _folder["elsewhere"]).ShouldBeNull();
    }

    string? Ask(TimeSpan within)
    {
        using var bus = SystemdBus.To(_folder["socket"]).ShouldNotBeNull();
        return bus.Ask("SystemState", within);
    }

    string? Trouble(bool isSeenNowOrNever, string argument = "--watch=proxmox:101")
    {
        using var watchdog = Watchdog.Leave(Unit, "Watch", ["/usr/sbin/gpu-handoff", "reconcile", argument], _folder["socket"], isSeenNowOrNever);
        return watchdog.Trouble();
    }

    static byte[] Property(uint answers, string value) => Message(2, answers, null, "v", [.. Signature("s"), 0, .. Text(value)]);

    static byte[] Taken() => Message(2, 1, null, "o", Text("/org/freedesktop/systemd1/job/42"));

    static byte[] Refusal(string why) => Message(3, 1, null, "s", Text(why));

    static byte[] JobRemoved(string unit, string result) => Message(
        4, null, "JobRemoved", "uoss", [.. Number(42), .. Padded(Text("/org/freedesktop/systemd1/job/42"), 4), .. Padded(Text(unit), 4), .. Text(result)]);

    /// <summary>As the specification of D-Bus has it, written down a second time.</summary>
    static byte[] Message(byte kind, uint? answers, string? member, string signature, byte[] body)
    {
        byte[] fields = [];
        void Add(byte code, string type, byte[] value) => fields = [.. Padded(fields, 8), code, .. Signature(type), .. value];
        Add(7, "s", Text("org.freedesktop.systemd1"));
        if (answers is { } serial)
            Add(5, "u", Number(serial));
        if (kind == 3)
            Add(4, "s", Text("org.freedesktop.systemd1.UnitExists"));
        if (member is not null)
        {
            Add(1, "o", Text("/org/freedesktop/systemd1"));
            Add(2, "s", Text("org.freedesktop.systemd1.Manager"));
            Add(3, "s", Text(member));
        }
        Add(8, "g", Signature(signature));
        return [(byte)'l', kind, 1, 1, .. Number((uint)body.Length), .. Number(77), .. Number((uint)fields.Length), .. Padded(fields, 8), .. body];
    }

    static byte[] Number(uint number)
    {
        var bytes = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, number);
        return bytes;
    }

    static byte[] Text(string text) => [.. Number((uint)text.Length), .. Encoding.ASCII.GetBytes(text), 0];

    static byte[] Signature(string signature) => [(byte)signature.Length, .. Encoding.ASCII.GetBytes(signature), 0];

    static byte[] Padded(byte[] bytes, int to) => [.. bytes, .. new byte[(to - bytes.Length % to) % to]];

    Socket Listen(Action<Socket, string> answer, string welcome = "DATA\r\nOK 0123456789abcdef0123456789abcdef\r\nAGREE_UNIX_FD\r\n")
    {
        var server = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        server.Bind(new UnixDomainSocketEndPoint(_folder["socket"]));
        server.Listen(1);
        new Thread(() =>
        {
            try
            {
                using var client = server.Accept();
                if (!Hear(client).StartsWith("\0AUTH EXTERNAL", StringComparison.Ordinal))
                    return;
                client.Send(Encoding.ASCII.GetBytes(welcome));
                answer(client, Hear(client));
            }
            catch (SocketException)
            {
                // The test is over, or has heard enough.
            }
        })
        { IsBackground = true }.Start();
        return server;
    }

    static string Hear(Socket client)
    {
        var buffer = new byte[4000];
        return Encoding.ASCII.GetString(buffer, 0, client.Receive(buffer));
    }
}
