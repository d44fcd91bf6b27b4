using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>
/// The process that makes every call that may never return. A write to <c>unbind</c> cannot be cancelled, and a process
/// with such a thread cannot finish exiting: so the calls are made in a child, and one that falls silent is left behind,
/// with nothing of ours or our caller's in its hands.
/// </summary>
/// <remarks>One request at a time: its length, then its parts, each behind its own length; the answer likewise.</remarks>
public sealed class Hand : IDisposable
{
    /// <summary>The argument that makes our binary a hand.</summary>
    public const string Argument = "--hand";

    const int LongestMessage = 64 * 1024;

    // A process of our own to come up, and a call that never blocks.
    static readonly TimeSpan _quick = TimeSpan.FromSeconds(5);

    /// <summary>The word behind it that makes it a guard, too.</summary>
    const string Guards = "guard";

    /// <summary>What we say when we end by ourselves.</summary>
    const string Farewell = "bye";

    readonly string _ourselves;
    readonly bool _guards;
    Spawned _process;
    LeftBehind? _lost;
    bool _dead;
    string? _posted;

    Hand(string ourselves, bool guards)
    {
        (_ourselves, _guards) = (ourselves, guards);
        _process = Grow();
    }

    /// <summary>Starts our own binary as a hand. It comes up while the machine is surveyed.</summary>
    /// <param name="guards">Should we end without a word (SIGKILL), it starts <c>recover</c>.</param>
    public static Hand Start(string ourselves, bool guards = false) => new(ourselves, guards);

    /// <summary>Whether it is this process.</summary>
    public bool Is(int pid) => _process.Pid == pid;

    Spawned Grow() => Spawned.Start(_ourselves, _guards ? [Argument, Guards] : [Argument], talks: true, complains: false);

    public void Dispose()
    {
        Message.Send(_process.ToChild, [Farewell]);
        _process.Dispose();
    }

    /// <summary>
    /// Asks for something quick whose end the next <see cref="Ask"/> waits for: the hand may still be coming up. One at a time.
    /// </summary>
    public void Post(string saying, TimeSpan now, params ReadOnlySpan<string> parts)
    {
        Settle(now);
        if (Message.Send(_process.ToChild, parts))
            _posted = saying;
        else
            _dead = true;
    }

    void Settle(TimeSpan now)
    {
        if (_posted is not { } saying || _lost is not null)
            return;
        _posted = null;
        _ = Answer(saying, _quick, now);
    }

    /// <summary>Asks for one call and waits for its end, at most as long as the budget says.</summary>
    /// <returns>What it answers beyond success.</returns>
    public string[] Ask(string saying, TimeSpan budget, TimeSpan now, params ReadOnlySpan<string> parts)
    {
        if (_lost is not null)
            throw new KernelSilent($"{saying} (not asked: an earlier call has not come back)", TimeSpan.Zero, now) { Process = _lost };
        Settle(now);
        // One that ended between two calls has a pipe without a reader: nothing was asked of it, so another may be.
        if (_dead || !Message.Send(_process.ToChild, parts))
        {
            _process.Dispose();
            _process = Grow();
            _dead = !Message.Send(_process.ToChild, parts);
        }
        return Answer(saying, budget, now);
    }

    string[] Answer(string saying, TimeSpan budget, TimeSpan now)
    {
        if (!Answers(budget))
        {
            _lost = _process.Look();
            throw new KernelSilent(saying, budget, now) { Process = _lost };
        }
        if (Message.Receive(_process.FromChild) is not [var errno, var reason, .. var rest])
        {
            _dead = true;
            throw new KernelRefused(saying, 0, "the helper process has ended before it answered");
        }
        if (reason.Length > 0)
            throw new KernelRefused(saying, int.Parse(errno), reason);
        return rest;
    }

    bool Answers(TimeSpan budget)
    {
        var clock = Stopwatch.StartNew();
        var watched = new Watched { File = _process.FromChild, Wanted = Libc.Readable };
        while (true)
        {
            // Every signal that comes our way interrupts the wait, and none may lengthen it.
            var left = Math.Clamp((budget - clock.Elapsed).TotalMilliseconds, 0, int.MaxValue);
            var ready = Libc.Poll(ref watched, 1, (int)Math.Ceiling(left));
            if (ready > 0)
                return true;
            if (ready == 0 || Libc.LastError() != Spawned.Interrupted)
                return false;
        }
    }

    /// <summary>What the child does: one call after another until its input ends.</summary>
    public static int Serve(IReadOnlyList<string> arguments)
    {
        // Our caller may be told to stop at any time; a call that is under way must reach its end all the same.
        _ = Libc.Signal(Libc.Hangup, Libc.Ignore);
        _ = Libc.Signal(Libc.Interrupt, Libc.Ignore);
        _ = Libc.Signal(Libc.Terminate, Libc.Ignore);
        _ = Libc.Signal(Libc.BrokenPipe, Libc.Ignore);
        // One that is left behind must keep no folder of our caller's busy.
        Environment.CurrentDirectory = "/";
        var locks = new Dictionary<string, int>();
        while (Message.Receive(0) is { } request)
        {
            if (request is [Farewell])
                return 0;
            string[] answer = request switch
            {
                ["write", var path, var text] => Plain(RiskyCalls.Write(path, text)),
                ["write", var path, var text, var empty, .. var counts] => Plain(RiskyCalls.Write(path, text, empty, counts)),
                ["read", var path] => Plain(RiskyCalls.Read(path)),
                ["bytes", var path, var count] => Plain(RiskyCalls.ReadBytes(path, int.Parse(count))),
                ["hold", var path] => Plain(FileLocks.Keep(path, locks)),
                ["rmmod", var module] => Plain(RiskyCalls.UnloadModule(module)),
                ["modprobe", .. var rest] => Plain(RiskyCalls.Modprobe(rest)),
                ["run", var milliseconds, var input, var count, .. var rest] when int.Parse(count) is var names && names < rest.Length =>
                    RiskyCalls.Run(rest[names], rest[(names + 1)..], TimeSpan.FromMilliseconds(long.Parse(milliseconds)), input, rest[..names]).ToMessage(),
                _ => Plain((Errno.Invalid, $"unknown request \"{string.Join(' ', request)}\"", null)),
            };
            // Nobody hears it where a run has ended since; whether in peace tells what else it has said, or its silence.
            _ = Message.Send(1, answer);
        }
        // Whoever we worked for has gone without a word, and our last call has ended.
        foreach (var file in locks.Values)
            _ = Libc.Close(file);
        if (arguments.Contains(Guards))
            Rescue.Start();
        return 0;

        static string[] Plain((int Errno, string Reason, string? Text) answer) => answer.Text is { } text
        ? [answer.Errno.ToString(), answer.Reason, text]
        : [answer.Errno.ToString(), answer.Reason];
    }

    static class Message
    {
        public static bool Send(int file, ReadOnlySpan<string> parts)
        {
            var text = string.Join('\0', parts.ToArray());
            var bytes = new byte[4 + Encoding.UTF8.GetByteCount(text)];
            BinaryPrimitives.WriteInt32LittleEndian(bytes, bytes.Length - 4);
            Encoding.UTF8.GetBytes(text, bytes.AsSpan(4));
            // Far below PIPE_BUF in every case but a long complaint of modprobe, and a pipe takes that whole, too.
            return Libc.Write(file, bytes, bytes.Length) == bytes.Length;
        }

        public static string[]? Receive(int file)
        {
            Span<byte> header = stackalloc byte[4];
            if (!Fill(file, header))
                return null;
            var length = BinaryPrimitives.ReadInt32LittleEndian(header);
            if (length is < 0 or > LongestMessage)
                return null;
            var body = new byte[length];
            return Fill(file, body) ? Encoding.UTF8.GetString(body).Split('\0') : null;
        }

        static bool Fill(int file, Span<byte> buffer)
        {
            while (buffer.Length > 0)
            {
                var got = Libc.Read(file, buffer, buffer.Length);
                if (got < 0 && Libc.LastError() == Spawned.Interrupted)
                    continue;
                if (got <= 0)
                    return false;
                buffer = buffer[(int)got..];
            }
            return true;
        }
    }
}
