using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using GpuHandoff.Kernel;

namespace GpuHandoff.Linux.Tests;

/// <summary>Talks through real Unix sockets, with somebody on the other side who behaves, or does not.</summary>
public sealed class SocketTests : IDisposable
{
    static readonly TimeSpan _plenty = TimeSpan.FromSeconds(20);
    static readonly TimeSpan _short = TimeSpan.FromMilliseconds(400);

    readonly TempFolder _folder = new();
    readonly LinuxKernel _kernel = new(hand: null);

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void What_comes_back_is_heard_until_it_is_all()
    {
        using var server = Listen(client =>
        {
            client.Send("greeting\r\n"u8);
            var said = Hear(client);
            Thread.Sleep(50);
            client.Send(Encoding.UTF8.GetBytes($"you said {said}\nevent\n"));
            // It stays on the line, as a monitor does.
            Thread.Sleep(_plenty);
        });
        var clock = Stopwatch.StartNew();
        var heard = Converse("ask\n", text => text.Contains("event\n"), _plenty);
        heard.ShouldBe("greeting\r\nyou said ask\n\nevent\n");
        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(5));
    }

    [Fact]
    public void One_that_hangs_up_is_heard_so_far()
    {
        using var server = Listen(client => client.Send("half an ans"u8));
        Converse("ask\n", _ => false, _plenty).ShouldBe("half an ans");
    }

    [Fact]
    public void One_that_never_answers_is_given_up_in_time()
    {
        using var server = Listen(_ => Thread.Sleep(_plenty));
        var clock = Stopwatch.StartNew();
        Should.Throw<KernelRefused>(() => Converse("ask\n", _ => false, _short)).Message.ShouldContain("no answer within 0.4 s");
        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(5));
    }

    [Fact]
    public void One_that_never_comes_to_the_door_is_given_up_in_time()
    {
        using var server = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        server.Bind(new UnixDomainSocketEndPoint(_folder["socket"]));
        server.Listen(0);
        // The first of these waits in the line, and the line is full.
        using var first = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        first.Connect(new UnixDomainSocketEndPoint(_folder["socket"]));
        Should.Throw<KernelRefused>(() => Converse("ask\n", _ => false, _short)).Message.ShouldContain("no answer within 0.4 s");
    }

    [Fact]
    public void One_that_does_not_stop_talking_is_left()
    {
        using var server = Listen(client =>
        {
            var noise = new byte[65536];
            for (var i = 0; i < 80; i++)
                client.Send(noise);
        });
        Should.Throw<KernelRefused>(() => Converse("ask\n", _ => false, _plenty)).Message.ShouldContain("more than 1 MiB");
    }

    [Fact]
    public void No_socket_and_nobody_behind_it_are_told_apart()
    {
        Should.Throw<KernelRefused>(() => Converse("ask\n", _ => false, _short)).Errno.ShouldBe(Errno.NoEntry);
        using var server = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        server.Bind(new UnixDomainSocketEndPoint(_folder["socket"]));
        Should.Throw<KernelRefused>(() => Converse("ask\n", _ => false, _short)).Message.ShouldContain("ECONNREFUSED");
        Should.Throw<KernelRefused>(() => _kernel.Converse(new($"/{new string('x', 200)}"), "", _ => true, _short)).Message.ShouldContain("too long");
    }

    // Our own threads are threads as QEMU's are.
    [Fact]
    public void A_thread_runs_where_it_is_told_and_the_kernel_says_so()
    {
        using var hand = Hand.Start(Path.Combine(AppContext.BaseDirectory, "gpu-handoff"));
        var kernel = new LinuxKernel(hand);
        using var sleeper = Process.Start("/bin/sleep", "60");
        try
        {
            kernel.SetAffinity(sleeper.Id, [0]);
            Allowed(sleeper.Id).ShouldBe("0");
            if (Environment.ProcessorCount > 1)
            {
                kernel.SetAffinity(sleeper.Id, [0, 1]);
                Allowed(sleeper.Id).ShouldBe("0-1");
            }
            Should.Throw<KernelRefused>(() => kernel.SetAffinity(sleeper.Id, [8191])).Errno.ShouldBe(Errno.Invalid);
            Should.Throw<KernelRefused>(() => _kernel.SetAffinity(sleeper.Id, [0])).Errno.ShouldBe(Errno.ReadOnly);
        }
        finally
        {
            sleeper.Kill();
            sleeper.WaitForExit();
        }
        Should.Throw<KernelRefused>(() => kernel.SetAffinity(sleeper.Id, [0])).Errno.ShouldBe(Errno.NoProcess);
        Should.Throw<ArgumentOutOfRangeException>(() => kernel.SetAffinity(0, [0]));
    }

    static string Allowed(int pid) => File.ReadLines($"/proc/{pid.ToString(CultureInfo.InvariantCulture)}/task/{pid}/status")
        .First(line => line.StartsWith("Cpus_allowed_list:", StringComparison.Ordinal)).Split('\t')[1];

    string Converse(string text, Func<string, bool> isAll, TimeSpan budget) => _kernel.Converse(new(_folder["socket"]), text, isAll, budget);

    static string Hear(Socket client)
    {
        var buffer = new byte[1000];
        return Encoding.UTF8.GetString(buffer, 0, client.Receive(buffer));
    }

    Socket Listen(Action<Socket> answer)
    {
        var server = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        server.Bind(new UnixDomainSocketEndPoint(_folder["socket"]));
        server.Listen(1);
        new Thread(() =>
        {
            try
            {
                using var client = server.Accept();
                answer(client);
            }
            catch (SocketException)
            {
                // The test is over, or has heard enough.
            }
        })
        { IsBackground = true }.Start();
        return server;
    }
}
