using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>
/// systemd by the D-Bus that it speaks with root at a socket of its own, as systemctl and systemd-run do (systemd,
/// dbus.c:bus_init_private): no program to start for a word, and no bus daemon between.
/// </summary>
/// <remarks>
/// D-Bus specification, "Message Protocol"; of its types those that are met here. On such a connection every signal comes
/// without being asked for (dbus.c:bus_foreach_bus).
/// </remarks>
public sealed class SystemdBus : IDisposable
{
    public const string Default = "/run/systemd/private";

    const string Manager = "org.freedesktop.systemd1.Manager";

    // sockaddr_un.sun_path
    const int LongestPath = 107;

    // The specification allows 128 MiB; systemd's words to us have a few hundred bytes.
    const int LongestMessage = 1 << 20;

    // systemd answers in milliseconds; whoever asks knows another way.
    static readonly TimeSpan _welcomes = TimeSpan.FromSeconds(2);

    const byte Call = 1;
    const byte Reply = 2;
    const byte Error = 3;

    readonly int _socket;
    readonly List<byte> _heard = [];
    uint _serial;
    bool _isWelcome;

    SystemdBus(int socket) => _socket = socket;

    /// <summary>Null: nobody listens there.</summary>
    public static SystemdBus? To(string path = Default)
    {
        if (Encoding.UTF8.GetByteCount(path) > LongestPath)
            return null;
        var socket = Libc.Socket(Libc.LocalSockets, Libc.Streams | Libc.NonBlocking | Libc.CloseOnExec, 0);
        if (socket < 0)
            return null;
        byte[] address = [Libc.LocalSockets, 0, .. Encoding.UTF8.GetBytes(path), 0];
        if (Libc.Connect(socket, address, (uint)address.Length) == 0)
            return new(socket);
        _ = Libc.Close(socket);
        return null;
    }

    /// <summary>A property of systemd's as a whole, if it is a text; null: no answer of that kind in time.</summary>
    public string? Ask(string property, TimeSpan within)
    {
        var body = new Words();
        body.Add(Manager);
        body.Add(property);
        var asked = Say("org.freedesktop.DBus.Properties", "Get", "ss", body);
        for (var clock = Stopwatch.StartNew(); asked is not null && Hear(within - clock.Elapsed) is { } message;)
        {
            if (message.Answers == asked)
                return message is { Kind: Reply, Signature: "v" } && message.Body.Signature() == "s" ? message.Body.Text() : null;
        }
        return null;
    }

    /// <summary>Asks for a service that is gone with its end, and does not wait for it. False: the words cannot be said.</summary>
    /// <param name="properties">Texts by their names (systemd.service(5), systemd.kill(5)).</param>
    /// <param name="command">The program by its absolute path, and its arguments: all as they are.</param>
    public bool Start(string unit, IEnumerable<(string Name, string Value)> properties, IReadOnlyList<string> command)
    {
        var body = new Words();
        body.Add(unit);
        body.Add("fail");
        var all = body.Begin(8);
        foreach (var (name, value) in properties)
        {
            body.Align(8);
            body.Add(name);
            body.AddSignature("s");
            body.Add(value);
        }
        body.Align(8);
        body.Add("ExecStart");
        body.AddSignature("a(sasb)");
        var commands = body.Begin(8);
        body.Add(command[0]);
        var arguments = body.Begin(4);
        foreach (var argument in command)
            body.Add(Literally(argument));
        body.End(arguments, 4);
        body.Add(0u);
        body.End(commands, 8);
        body.End(all, 8);
        // No units besides.
        body.End(body.Begin(8), 8);
        return Say(Manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", body) is not null;
    }

    /// <summary>Why the service does not start; null: it has started, or, where that is enough, systemd has taken it upon itself.</summary>
    public string? HowItStarts(string unit, bool toItsEnd, TimeSpan within)
    {
        var taken = false;
        // Once it is taken, what is there already is still read.
        for (var clock = Stopwatch.StartNew(); Hear(taken && !toItsEnd ? TimeSpan.Zero : within - clock.Elapsed) is { } message;)
        {
            if (message is { Kind: Error } && message.Answers == _serial)
                return message.Signature.StartsWith('s') ? message.Body.Text() : "systemd refuses it";
            taken |= message.Kind == Reply && message.Answers == _serial;
            // JobRemoved(id, job, unit, result): org.freedesktop.systemd1(5).
            if (message is { Member: "JobRemoved", Signature: "uoss" })
            {
                _ = message.Body.Number();
                _ = message.Body.Text();
                if (message.Body.Text() == unit)
                    return message.Body.Text() is var result && result == "done" ? null : $"its start ended as \"{result}\": journalctl -u {unit}";
            }
        }
        return taken && !toItsEnd ? null : "systemd does not answer";
    }

    /// <summary>What systemd does not take for the name of a variable (systemd, env-util.c:replace_env_argv).</summary>
    public static string Literally(string argument) => argument.Replace("$", "$$");

    public void Dispose() => _ = Libc.Close(_socket);

    /// <summary>The number of the call; null: the line is dead.</summary>
    uint? Say(string by, string member, string signature, Words body)
    {
        var head = new Words();
        head.AddRaw([(byte)'l', Call, 0, 1]);
        head.Add((uint)body.Length);
        head.Add(++_serial);
        var fields = head.Begin(8);
        head.AddField(1, "o", "/org/freedesktop/systemd1");
        head.AddField(2, "s", by);
        head.AddField(3, "s", member);
        head.AddField(6, "s", "org.freedesktop.systemd1");
        head.AddField(8, "g", signature);
        head.End(fields, 8);
        head.Align(8);
        return IsWelcome() && Send([.. head.ToArray(), .. body.ToArray()]) ? _serial : null;
    }

    bool Send(byte[] words) => Libc.SendTo(_socket, words, words.Length, Libc.NoSignal, [], 0) == words.Length;

    /// <summary>
    /// Says who we are, which the other side knows from the socket itself. Waits for its word: a message that came together with
    /// these would be read with them, and lie there until something else came (sd-bus, bus-socket.c:bus_socket_auth_verify_server).
    /// </summary>
    bool IsWelcome()
    {
        if (_isWelcome)
            return true;
        var user = Convert.ToHexStringLower(Encoding.ASCII.GetBytes(Libc.UserId().ToString()));
        if (!Send(Encoding.ASCII.GetBytes($"\0AUTH EXTERNAL {user}\r\nBEGIN\r\n")))
            return false;
        var clock = Stopwatch.StartNew();
        do
        {
            // OK 1234deadbeef
            var end = _heard.IndexOf((byte)'\n');
            if (end < 0)
                continue;
            _isWelcome = _heard is [(byte)'O', (byte)'K', ..];
            _heard.RemoveRange(0, end + 1);
            return _isWelcome;
        }
        while (IsTold(_welcomes - clock.Elapsed));
        return false;
    }

    /// <summary>The next message; null: none in time, or nothing that could be one.</summary>
    Message? Hear(TimeSpan within)
    {
        for (var clock = Stopwatch.StartNew(); ;)
        {
            if (Next(out var wrong) is { } message)
                return message;
            if (wrong || !IsTold(within - clock.Elapsed))
                return null;
        }
    }

    /// <summary>Whether something came in time.</summary>
    bool IsTold(TimeSpan within)
    {
        Span<byte> buffer = stackalloc byte[4096];
        for (var clock = Stopwatch.StartNew(); ;)
        {
            var left = Math.Max(0, (within - clock.Elapsed).TotalMilliseconds);
            var watched = new Watched { File = _socket, Wanted = Libc.Readable };
            if (Libc.Poll(ref watched, 1, (int)Math.Ceiling(left)) == 0)
                return false;
            var got = Libc.Read(_socket, buffer, buffer.Length);
            if (got > 0)
            {
                _heard.AddRange(buffer[..(int)got]);
                return true;
            }
            if (got == 0 || left <= 0 || Libc.LastError() is not (Errno.TryAgain or Spawned.Interrupted))
                return false;
        }
    }

    Message? Next(out bool wrong)
    {
        wrong = false;
        const int fixedPart = 16;
        if (_heard.Count < fixedPart)
            return null;
        var bytes = _heard.ToArray();
        var body = BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(4));
        var fields = BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(12));
        // A machine has one byte order, and ours is x86's.
        wrong = bytes[0] != (byte)'l' || body > LongestMessage || fields > LongestMessage;
        var begin = (int)(fixedPart + ((fields + 7) & ~7u));
        if (wrong || bytes.Length < begin + body)
            return null;
        _heard.RemoveRange(0, begin + (int)body);
        var message = new Message(bytes[1], new Reading(bytes, begin, begin + (int)body));
        var head = new Reading(bytes, fixedPart, fixedPart + (int)fields);
        while (!head.IsAtItsEnd())
        {
            head.Align(8);
            var code = head.Byte();
            switch ((code, head.Signature()))
            {
                case (3, "s"):
                    message = message with { Member = head.Text() };
                    break;
                case (5, "u"):
                    message = message with { Answers = head.Number() };
                    break;
                case (8, "g"):
                    message = message with { Signature = head.Signature() };
                    break;
                case (_, "s" or "o"):
                    _ = head.Text();
                    break;
                case (_, "u"):
                    _ = head.Number();
                    break;
                default:
                    wrong = true;
                    return null;
            }
        }
        return message;
    }

    sealed record Message(byte Kind, Reading Body)
    {
        public string Member { get; init; } = "";

        public string Signature { get; init; } = "";

        public uint Answers { get; init; }
    }

    /// <summary>What is written from a boundary of eight bytes on.</summary>
    sealed class Words
    {
        readonly List<byte> _bytes = [];

        public int Length => _bytes.Count;

        public byte[] ToArray() => [.. _bytes];

        public void AddRaw(ReadOnlySpan<byte> bytes) => _bytes.AddRange(bytes);

        public void Align(int to)
        {
            while (_bytes.Count % to != 0)
                _bytes.Add(0);
        }

        public void Add(uint number)
        {
            Align(4);
            Span<byte> four = stackalloc byte[4];
            BinaryPrimitives.WriteUInt32LittleEndian(four, number);
            _bytes.AddRange(four);
        }

        public void Add(string text)
        {
            var bytes = Encoding.UTF8.GetBytes(text);
            Add((uint)bytes.Length);
            _bytes.AddRange(bytes);
            _bytes.Add(0);
        }

        public void AddSignature(string signature)
        {
            _bytes.Add((byte)signature.Length);
            _bytes.AddRange(Encoding.ASCII.GetBytes(signature));
            _bytes.Add(0);
        }

        public void AddField(byte code, string type, string value)
        {
            Align(8);
            _bytes.Add(code);
            AddSignature(type);
            if (type == "g")
                AddSignature(value);
            else
                Add(value);
        }

        /// <summary>An array, whose length is known at its end. The padding before the first element does not count in it.</summary>
        public int Begin(int alignment)
        {
            Add(0u);
            var place = _bytes.Count - 4;
            Align(alignment);
            return place;
        }

        public void End(int place, int alignment)
        {
            var begin = (place + 4 + alignment - 1) / alignment * alignment;
            Span<byte> four = stackalloc byte[4];
            BinaryPrimitives.WriteUInt32LittleEndian(four, (uint)(_bytes.Count - begin));
            for (var i = 0; i < 4; i++)
                _bytes[place + i] = four[i];
        }
    }

    /// <summary>Reads what is there; beyond the end all is empty.</summary>
    sealed class Reading(byte[] bytes, int at, int end)
    {
        int _at = at;

        public bool IsAtItsEnd() => _at >= end;

        public void Align(int to) => _at = (_at + to - 1) / to * to;

        public byte Byte() => _at < end ? bytes[_at++] : (byte)0;

        public uint Number()
        {
            Align(4);
            _at += 4;
            return _at <= end ? BinaryPrimitives.ReadUInt32LittleEndian(bytes.AsSpan(_at - 4)) : 0;
        }

        public string Text() => Text((int)Math.Min(Number(), LongestMessage));

        public string Signature() => Text(Byte());

        string Text(int length)
        {
            var text = length <= end - _at ? Encoding.UTF8.GetString(bytes, _at, length) : "";
            _at += length + 1;
            return text;
        }
    }
}
