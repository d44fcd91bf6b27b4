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
/// <remarks>
/// One request at a time: its length, then its parts; the answer likewise. Before the answer comes a word that the request is
/// taken: from there on the call has its time. What is not taken was never begun, and a helper that is slow to come up is no
/// call that hangs.
/// </remarks>
public sealed class Hand : IDisposable
{
    /// <summary>The argument that makes our binary a hand.</summary>
    public const string Argument = "--hand";

    const int LongestMessage = 64 * 1024;

    /// <summary>How long a helper may need before it takes a request: a host that swaps, or starts eight VMs at once, is slow.</summary>
    static readonly TimeSpan _untilTaken = TimeSpan.FromSeconds(60);

    // A process that is in no call that cannot be interrupted ends at once; on a host that swaps in seconds.
    static readonly TimeSpan _untilKilled = TimeSpan.FromSeconds(10);

    /// <summary>The word behind it that makes it a guard, too.</summary>
    const string Guards = "guard";

    /// <summary>What we say when we end by ourselves.</summary>
    const string Farewell = "bye";

    /// <summary>What the hand says of a request before it makes the call.</summary>
    const string Taken = "taken";

    const string Holds = "hold";
    const string Runs = "run";
    const string Reads = "read";
    const string ReadsBytes = "bytes";

    readonly string _ourselves;
    readonly bool _guards;
    readonly TimeSpan _patience;
    readonly List<string> _locks = [];
    Spawned _process;
    LeftBehind? _lost;
    bool _dead;
    int _unanswered;

    Hand(string ourselves, bool guards, TimeSpan patience)
    {
        (_ourselves, _guards, _patience) = (ourselves, guards, patience);
        _process = Grow();
    }

    /// <summary>Starts our own binary as a hand. It comes up while the machine is surveyed.</summary>
    /// <param name="guards">Should we end without a word (SIGKILL), it starts <c>recover</c>.</param>
    /// <param name="patience">How long it may need before it takes a request; null: as long as a busy host may need.</param>
    public static Hand Start(string ourselves, bool guards = false, TimeSpan? patience = null) => new(ourselves, guards, patience ?? _untilTaken);

    /// <summary>Whether it is this process.</summary>
    public bool Is(int pid) => _process.Pid == pid;

    Spawned Grow() => Spawned.Start(_ourselves, _guards ? [Argument, Guards] : [Argument], talks: true, complains: false);

    public void Dispose()
    {
        Message.Send(_process.ToChild, [Farewell]);
        _process.Dispose();
    }

    /// <summary>
    /// Has it take a lock for as long as it lives, which the next <see cref="Ask"/> waits for: the hand may still be coming up.
    /// Another hand in its place takes the lock, too, before it does anything else.
    /// </summary>
    public void Hold(string path)
    {
        _locks.Add(path);
        // One that has ended meanwhile is noticed by the next call, and another takes all of them.
        _ = Message.Send(_process.ToChild, [Holds, path]);
        _unanswered++;
    }

    /// <summary>Asks for one call and waits for its end, at most as long as the budget says from when the hand has taken it.</summary>
    /// <returns>What it answers beyond success.</returns>
    /// <exception cref="KernelSilent">The hand is in the call, which may hold a GPU, and does not come back.</exception>
    /// <exception cref="HelperSilent">The hand did not answer, and is in no such call.</exception>
    public string[] Ask(string saying, TimeSpan budget, TimeSpan now, params ReadOnlySpan<string> parts)
    {
        if (_lost is not null)
            throw new KernelSilent($"{saying} (not asked: an earlier call has not come back)", TimeSpan.Zero, now, _lost);
        var request = parts.ToArray();
        for (var isLast = false; ; isLast = true)
        {
            if (_dead)
                Replace();
            var heard = TakeLocks(saying);
            var isAsked = heard == Heard.Word;
            if (isAsked)
                heard = Message.Send(_process.ToChild, request) ? Hear(_patience) : Heard.End;
            if (heard == Heard.Word)
                heard = Message.Receive(_process.FromChild) is [Taken] ? Heard.Word : Heard.End;
            if (heard == Heard.Word)
                return Answer(saying, budget, now, request);
            // It was never begun, so it may be asked of another process: once.
            _dead = true;
            if (heard == Heard.Nothing)
                Withdraw(saying, now, isAsked ? request : []);
            if (isLast)
            {
                throw new HelperSilent(saying, _process.Pid, heard == Heard.Nothing
                    ? $"the helper process {_process.Pid} did not come up within {_patience.TotalSeconds:0.#} s, nor did the one before it: the host is too busy, or it was stopped"
                    : "the helper process ends before it takes a call");
            }
        }
    }

    enum Heard
    {
        Word,
        Nothing,
        End,
    }

    void Replace()
    {
        _process.Dispose();
        _process = Grow();
        (_dead, _unanswered) = (false, _locks.Count);
        foreach (var path in _locks)
            _ = Message.Send(_process.ToChild, [Holds, path]);
    }

    /// <summary>Waits until the hand has every lock that it is to have.</summary>
    Heard TakeLocks(string saying)
    {
        for (; _unanswered > 0; _unanswered--)
        {
            // That it has taken the request, and how it went.
            for (var word = 0; word < 2; word++)
            {
                if (Hear(_patience) is not Heard.Word and var heard)
                    return heard;
                switch (Message.Receive(_process.FromChild))
                {
                    case null:
                        return Heard.End;
                    case [var errno, { Length: > 0 } reason, ..]:
                        // Without its lock it does nothing: another run could not see that it is at work.
                        _dead = true;
                        throw new KernelRefused($"{saying}: lock {_locks[^_unanswered]}", int.Parse(errno), reason);
                }
            }
        }
        return Heard.Word;
    }

    /// <summary>Ends a hand that has not taken a request, so that it never does.</summary>
    /// <param name="request">Empty: none was asked for yet, it was still at its locks.</param>
    void Withdraw(string saying, TimeSpan now, string[] request)
    {
        var isOver = _process.End(_untilKilled);
        // What it said before it was killed: it may have come to itself at that very moment.
        var hasBegun = false;
        while (Hear(TimeSpan.Zero) == Heard.Word && Message.Receive(_process.FromChild) is { } word)
            hasBegun |= word is [Taken] && request is not [];
        if (!hasBegun && isOver)
            return;
        if (!isOver && hasBegun && MayHold(request))
        {
            _lost = _process.Look();
            throw new KernelSilent(saying, _patience, now, _lost);
        }
        throw new HelperSilent(saying, _process.Pid, isOver
            ? $"the helper process {_process.Pid} was too late, and was ended: whether the call was made is seen when it is looked at"
            : $"the helper process {_process.Pid} does not come up, and cannot be ended: the host is too busy, or out of memory");
    }

    string[] Answer(string saying, TimeSpan budget, TimeSpan now, string[] request)
    {
        var heard = Hear(budget);
        // A look that is late is no call that hangs: looked at once more. A program's end is the hand's to see to.
        if (heard == Heard.Nothing && !MayHold(request))
        {
            var more = request is [Runs, ..] ? _patience : budget;
            heard = Hear(more);
            budget += more;
        }
        if (heard == Heard.Nothing)
            heard = Late(saying, budget, now, request);
        if (heard == Heard.Word && Message.Receive(_process.FromChild) is [var errno, var reason, .. var rest])
            return reason.Length > 0 ? throw new KernelRefused(saying, int.Parse(errno), reason) : rest;
        _dead = true;
        throw new HelperSilent(saying, _process.Pid, "the helper process has ended before it answered");
    }

    /// <summary>Finds out why there is no answer: only a call that may hold a GPU is silent.</summary>
    Heard Late(string saying, TimeSpan budget, TimeSpan now, string[] request)
    {
        // Who is stopped (T, t) is not in a call: a signal stops a process on its way out of the kernel. So it may be ended, as
        // nothing may be that is in a write: nvidia's remove goes on then, and never sleeps again.
        var chain = _process.Chain();
        var stopped = chain.FirstOrDefault(p => p.Stat?.State is 'T' or 't');
        if (stopped.Stat is not null && stopped.Pid != _process.Pid)
        {
            // modprobe's, or a child's of it: its end is an answer.
            _ = Libc.SendSignal(stopped.Pid, Libc.Kill);
            if (Hear(_untilKilled) is not Heard.Nothing and var heard)
                return heard;
        }
        // Not where a modprobe of its lives: that would go on without the lock by which other runs wait for it.
        if ((stopped.Stat is not null && stopped.Pid == _process.Pid && chain is [_]) || request is [Runs, ..])
        {
            _dead = true;
            var isOver = _process.End(_untilKilled);
            if (isOver || request is [Runs, ..])
            {
                throw new HelperSilent(saying, _process.Pid, stopped.Stat is not null
                    ? $"the helper process {_process.Pid} was stopped by a signal (state {stopped.Stat.State}) and has been ended: what it had done of it is seen when it is looked at"
                    : $"the helper process {_process.Pid} did not answer within {budget.TotalSeconds:0.#} s and {(isOver ? "was ended" : "cannot be ended")}");
            }
        }
        _lost = _process.Look();
        throw new KernelSilent(saying, budget, now, _lost);
    }

    /// <summary>Whether it is a call that changes something of a device, behind whose lock everything else waits.</summary>
    static bool MayHold(string[] request) => request is not [Reads or ReadsBytes or Runs or Holds, ..];

    Heard Hear(TimeSpan budget)
    {
        var clock = Stopwatch.StartNew();
        var watched = new Watched { File = _process.FromChild, Wanted = Libc.Readable };
        while (true)
        {
            // Every signal that comes our way interrupts the wait, and none may lengthen it.
            var left = Math.Clamp((budget - clock.Elapsed).TotalMilliseconds, 0, int.MaxValue);
            var ready = Libc.Poll(ref watched, 1, (int)Math.Ceiling(left));
            if (ready > 0)
                return (watched.Seen & Libc.Readable) != 0 ? Heard.Word : Heard.End;
            if (ready == 0 || Libc.LastError() != Spawned.Interrupted)
                return Heard.Nothing;
        }
    }

    /// <summary>What the child does: one call after another until its input ends.</summary>
    /// <returns>0: its run has ended in peace; 1: without a word.</returns>
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
            // Its run has ended meanwhile, and another one may be looking at the machine already: what has not been begun is
            // not begun any more. Read on all the same: the last word tells whether it ended in peace.
            if (IsAlone())
                continue;
            _ = Message.Send(1, [Taken]);
            string[] answer = request switch
            {
                ["write", var path, var text] => Plain(RiskyCalls.Write(path, text)),
                ["write", var path, var text, var empty, .. var counts] => Plain(RiskyCalls.Write(path, text, empty, counts)),
                [Reads, var path] => Plain(RiskyCalls.Read(path)),
                [ReadsBytes, var path, var count] => Plain(RiskyCalls.ReadBytes(path, int.Parse(count))),
                [Holds, var path] => Plain(FileLocks.Keep(path, locks)),
                ["rmmod", var module] => Plain(RiskyCalls.UnloadModule(module)),
                ["modprobe", .. var rest] => Plain(RiskyCalls.Modprobe(rest)),
                [Runs, var milliseconds, var input, var count, .. var rest] when int.Parse(count) is var names && names < rest.Length =>
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
        return 1;

        static string[] Plain((int Errno, string Reason, string? Text) answer) => answer.Text is { } text
        ? [answer.Errno.ToString(), answer.Reason, text]
        : [answer.Errno.ToString(), answer.Reason];
    }

    /// <summary>Whether the other end of our input is closed.</summary>
    static bool IsAlone()
    {
        var input = new Watched { File = 0 };
        return Libc.Poll(ref input, 1, 0) > 0 && (input.Seen & Libc.HungUp) != 0;
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
