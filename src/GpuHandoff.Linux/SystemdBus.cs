using System.Diagnostics;
using System.Runtime.InteropServices;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>
/// systemd by the D-Bus that it speaks with root at a socket of its own, as systemctl and systemd-run do (systemd,
/// dbus.c:bus_init_private): no program to start for a word, and no bus daemon between.
/// </summary>
/// <remarks>
/// The words are put together and read by systemd's own library; on such a connection every signal comes without being asked
/// for (dbus.c:bus_foreach_bus). Its calls that wait are left alone: while the other side says nothing they wait for 90 s.
/// </remarks>
public sealed class SystemdBus : IDisposable
{
    public const string Default = "/run/systemd/private";

    const string Service = "org.freedesktop.systemd1";
    const string Root = "/org/freedesktop/systemd1";
    const string Manager = "org.freedesktop.systemd1.Manager";
    const int Interrupted = -4;

    // systemd answers in milliseconds; whoever asks knows another way.
    static readonly TimeSpan _welcomes = TimeSpan.FromSeconds(2);

    readonly nint _bus;
    ulong _asked;

    SystemdBus(nint bus) => _bus = bus;

    /// <summary>Null: nobody listens there, or this host lacks the library.</summary>
    /// <param name="path">A socket, in characters that need no escape in an address of D-Bus.</param>
    public static SystemdBus? To(string path = Default)
    {
        try
        {
            if (!File.Exists(path) || SdBus.New(out var bus) < 0)
                return null;
            var line = new SystemdBus(bus);
            if (SdBus.SetAddress(bus, $"unix:path={path}") >= 0 && SdBus.Start(bus) >= 0)
                return line;
            line.Dispose();
            return null;
        }
        catch (Exception e) when (e is DllNotFoundException or EntryPointNotFoundException)
        {
            return null;
        }
    }

    /// <summary>A property of systemd's as a whole, if it is a text; null: no answer of that kind in time.</summary>
    public string? Ask(string property, TimeSpan within)
    {
        var clock = Stopwatch.StartNew();
        if (!Say("org.freedesktop.DBus.Properties", "Get", words => words.Add(Manager).Add(property)))
            return null;
        while (Hear(within - clock.Elapsed) is { } message)
        {
            using (message)
            {
                if (message.Answers(_asked))
                    return message.IsReply() ? message.Variant() : null;
            }
        }
        return null;
    }

    /// <summary>Asks for a service that is gone with its end, and does not wait for it. False: the words cannot be said.</summary>
    /// <param name="properties">Texts by their names (systemd.service(5), systemd.kill(5)).</param>
    /// <param name="command">The program by its absolute path, and its arguments: all as they are.</param>
    public bool Start(string unit, IEnumerable<(string Name, string Value)> properties, IReadOnlyList<string> command)
    {
        return Say(Manager, "StartTransientUnit", words =>
        {
            words.Add(unit).Add("fail").Open('a', "(sv)");
            foreach (var (name, value) in properties)
                words.Open('r', "sv").Add(name).Open('v', "s").Add(value).Close(2);
            words.Open('r', "sv").Add("ExecStart").Open('v', "a(sasb)").Open('a', "(sasb)").Open('r', "sasb").Add(command[0]).Open('a', "s");
            foreach (var argument in command)
                words.Add(Literally(argument));
            // An exit code other than 0 is a failure; and no units besides.
            words.Close(1).Add(false).Close(5).Open('a', "(sa(sv))").Close(1);
        });
    }

    /// <summary>Why the service does not start; null: it has started, or, where that is enough, systemd has taken it upon itself.</summary>
    public string? HowItStarts(string unit, bool toItsEnd, TimeSpan within)
    {
        var taken = false;
        // Once it is taken, what is there already is still read.
        for (var clock = Stopwatch.StartNew(); Hear(taken && !toItsEnd ? TimeSpan.Zero : within - clock.Elapsed) is { } message;)
        {
            using (message)
            {
                if (message.Answers(_asked) && !message.IsReply())
                    return message.Text() ?? "systemd refuses it";
                taken |= message.Answers(_asked);
                if (message.EndOfJob(unit) is { } result)
                    return result == "done" ? null : $"its start ended as \"{result}\": journalctl -u {unit}";
            }
        }
        return taken && !toItsEnd ? null : "systemd does not answer";
    }

    /// <summary>What systemd does not take for the name of a variable (systemd, env-util.c:replace_env_argv).</summary>
    public static string Literally(string argument) => argument.Replace("$", "$$");

    public void Dispose() => _ = SdBus.CloseUnref(_bus);

    /// <summary>False: it cannot be put into words, or nobody takes them.</summary>
    bool Say(string by, string member, Action<Words> body)
    {
        if (SdBus.NewCall(_bus, out var call, Service, Root, by, member) < 0)
            return false;
        try
        {
            var words = new Words(call);
            body(words);
            return words.AreWhole && SdBus.Send(_bus, call, out _asked) >= 0 && IsSaid();
        }
        finally
        {
            _ = SdBus.Unref(call);
        }
    }

    /// <summary>Whether the words are out: before that both sides say who they are.</summary>
    bool IsSaid()
    {
        for (var clock = Stopwatch.StartNew(); SdBus.QueuedWrites(_bus, out var left) >= 0;)
        {
            if (left == 0)
                return true;
            var done = SdBus.Process(_bus, out var message);
            // A signal from before our question tells nothing of it.
            if (message != 0)
                _ = SdBus.Unref(message);
            if (done < 0 || (done == 0 && !MayGoOn(_welcomes - clock.Elapsed)))
                return false;
        }
        return false;
    }

    /// <summary>The next message; null: none in time, or the line is dead.</summary>
    Message? Hear(TimeSpan within)
    {
        for (var clock = Stopwatch.StartNew(); ;)
        {
            var done = SdBus.Process(_bus, out var message);
            if (message != 0)
                return new(message);
            if (done < 0 || (done == 0 && !MayGoOn(within - clock.Elapsed)))
                return null;
        }
    }

    /// <summary>Waits until there is something to do; false: the time is over, or the line is dead.</summary>
    bool MayGoOn(TimeSpan within) =>
        within > TimeSpan.Zero && SdBus.Wait(_bus, (ulong)Math.Ceiling(within.TotalMicroseconds)) is >= 0 or Interrupted;

    /// <summary>The body of a call. What cannot be added is remembered, and the call not made.</summary>
    sealed class Words(nint call)
    {
        public bool AreWhole { get; private set; } = true;

        public Words Add(string text) => Add(SdBus.AppendText(call, (byte)'s', text));

        public Words Add(bool flag) => Add(SdBus.AppendNumber(call, (byte)'b', flag ? 1 : 0));

        public Words Open(char type, string contents) => Add(SdBus.Open(call, (byte)type, contents));

        public Words Close(int containers)
        {
            for (var i = 0; i < containers; i++)
                Add(SdBus.Close(call));
            return this;
        }

        Words Add(int result)
        {
            AreWhole &= result >= 0;
            return this;
        }
    }

    sealed class Message(nint message) : IDisposable
    {
        public bool Answers(ulong call) => SdBus.Answers(message, out var cookie) >= 0 && cookie == call;

        public bool IsReply() => SdBus.TypeOf(message, out var type) >= 0 && type == SdBus.Reply;

        public string? Variant() => SdBus.Enter(message, (byte)'v', "s") > 0 ? Text() : null;

        public string? Text() => SdBus.ReadText(message, (byte)'s', out var text) > 0 ? Marshal.PtrToStringUTF8(text) : null;

        // JobRemoved(id, job, unit, result): org.freedesktop.systemd1(5).
        /// <summary>How a unit's job has ended; null: the message is about something else.</summary>
        public string? EndOfJob(string unit) =>
            SdBus.IsSignal(message, Manager, "JobRemoved") > 0 && SdBus.Skip(message, "uo") >= 0 && Text() == unit ? Text() : null;

        public void Dispose() => _ = SdBus.Unref(message);
    }
}
