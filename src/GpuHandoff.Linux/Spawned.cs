using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;
using GpuHandoff.Survey;

namespace GpuHandoff.Linux;

/// <summary>
/// A child in a session of its own, with an empty environment, its stdin from /dev/null or our pipe and its stdout to our
/// pipe: it keeps no file of our caller open, and no signal of our caller's terminal reaches it.
/// </summary>
sealed class Spawned : IDisposable
{
    /// <summary>All that a program of others gets to know of us.</summary>
    public static IReadOnlyList<string> BareEnvironment { get; } =
        ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"];

    // The opaque types of spawn.h are 80 and 336 bytes in glibc; more is harmless.
    const int OpaqueSize = 512;
    const int SignalSetSize = 128;
    const int FirstRealTimeSignal = 32;

    readonly int _pid;
    bool _reaped;

    Spawned(int pid, int toChild, int fromChild)
    {
        _pid = pid;
        ToChild = toChild;
        FromChild = fromChild;
    }

    public int Pid => _pid;

    /// <summary>Our end of its stdin; -1 where it has /dev/null.</summary>
    public int ToChild { get; private set; }

    /// <summary>Our end of its stdout.</summary>
    public int FromChild { get; private set; }

    /// <summary>Starts a program by its absolute path.</summary>
    /// <param name="talks">Whether it gets a pipe for its stdin.</param>
    /// <param name="complains">Whether its stderr goes to the same pipe as its stdout; else to /dev/null.</param>
    /// <param name="environment">
    /// Null: nothing, for programs that need nothing. With one it also gets the signals that end it back as they are by default.
    /// </param>
    public static Spawned Start(
        string program, IReadOnlyList<string> arguments, bool talks, bool complains, IReadOnlyList<string>? environment = null)
    {
        // Whatever our caller left open (a task's pipe, a lock) is not for children. Ours are closed on exec already.
        _ = Libc.CloseRange(3, uint.MaxValue, Libc.OnExec);

        Span<int> input = [-1, -1];
        Span<int> output = [-1, -1];
        if (talks)
            Check(Libc.Pipe(input, Libc.CloseOnExec), "pipe2");
        Check(Libc.Pipe(output, Libc.CloseOnExec), "pipe2");

        Span<byte> actions = stackalloc byte[OpaqueSize];
        Span<byte> attributes = stackalloc byte[OpaqueSize];
        _ = Libc.InitFileActions(actions);
        _ = Libc.InitSpawnAttributes(attributes);
        _ = Libc.SetSpawnFlags(attributes, Libc.NewSession | Libc.DefaultSignals);
        // What is ignored is inherited. With SIGCHLD ignored no program can ask how its own children ended (waitpid(2), ECHILD);
        // the others the hand ignores, and a container started so would not hear them, either.
        Span<byte> signals = stackalloc byte[SignalSetSize];
        // For programs of others all of them: what our caller ignores (SIGQUIT in a script's background) is none of their business. The two
        // that no process can ignore are refused silently (posix_spawnattr_setsigdefault(3)).
        for (var signal = 1; signal < FirstRealTimeSignal; signal++)
        {
            if (environment is not null || signal == Libc.ChildEnded)
                signals[(signal - 1) / 8] |= (byte)(1 << ((signal - 1) % 8));
        }
        _ = Libc.SetDefaultSignals(attributes, signals);
        _ = talks ? Libc.AddDup(actions, input[0], 0) : Libc.AddOpen(actions, 0, "/dev/null", Libc.ReadOnly, 0);
        _ = Libc.AddDup(actions, output[1], 1);
        _ = complains ? Libc.AddDup(actions, output[1], 2) : Libc.AddOpen(actions, 2, "/dev/null", Libc.WriteOnly, 0);

        nint[] argv = [.. new[] { program }.Concat(arguments).Select(Marshal.StringToCoTaskMemUTF8), 0];
        nint[] envp = [.. (environment ?? []).Select(Marshal.StringToCoTaskMemUTF8), 0];
        try
        {
            var error = Libc.PosixSpawn(out var pid, program, actions, attributes, argv, envp);
            if (error != 0)
                throw new KernelRefused($"start {program}", error, Errno.Say(error));
            return new(pid, input[1], output[0]);
        }
        finally
        {
            foreach (var text in argv.Concat(envp))
                Marshal.FreeCoTaskMem(text);
            _ = Libc.DestroyFileActions(actions);
            _ = Libc.DestroySpawnAttributes(attributes);
            Close(input[0]);
            Close(output[1]);
        }
    }

    /// <summary>All that it gets to read: a few words, which the pipe takes at once. One that does not read them is not waited for.</summary>
    public void Tell(string words)
    {
        if (ToChild < 0)
            return;
        var bytes = Encoding.UTF8.GetBytes(words);
        _ = Libc.Write(ToChild, bytes, bytes.Length);
        Close(ToChild);
        ToChild = -1;
    }

    /// <summary>Its exit code once it has ended; <see cref="Unknown"/> where the kernel has kept none.</summary>
    public int Wait()
    {
        int status;
        while (Libc.WaitPid(_pid, out status, 0) < 0)
        {
            // A signal came in between: wait on.
            if (Libc.LastError() == Interrupted)
                continue;
            _reaped = true;
            return Unknown;
        }
        _reaped = true;
        return ExitCode(status);
    }

    /// <summary>Its exit code, or null where it has not ended within the limit.</summary>
    public int? Wait(TimeSpan limit)
    {
        // Its end closes its output, which it has to itself.
        var watched = new Watched { File = FromChild, Wanted = Libc.Readable };
        var clock = Stopwatch.StartNew();
        while (true)
        {
            var left = Math.Clamp((limit - clock.Elapsed).TotalMilliseconds, 0, int.MaxValue);
            var ready = Libc.Poll(ref watched, 1, (int)Math.Ceiling(left));
            if (ready > 0)
                return Wait();
            if (ready == 0 || Libc.LastError() != Interrupted)
                return null;
        }
    }

    /// <summary>Where it is, or the child of its own that it waits for.</summary>
    public LeftBehind Look()
    {
        var (pid, stat) = Chain()[^1];
        var function = _looking.Read(Sys.Proc / $"{pid}/wchan");
        return new(pid, stat?.Started ?? 0, stat is null ? "" : $"state {stat.State}{(function is null or "" or "0" ? "" : $" in {function}")}");
    }

    /// <summary>It, and behind it the child that it waits for, and so on; a stat is null where that one has just ended.</summary>
    public IReadOnlyList<(int Pid, ProcessStat? Stat)> Chain()
    {
        var chain = new List<(int, ProcessStat?)>();
        for (int? pid = _pid; pid is { } at; pid = ChildOf(at))
            chain.Add((at, ProcessStat.Of(at, _looking)));
        return chain;

        static int? ChildOf(int pid) => _looking.Read(Sys.Proc / $"{pid}/task/{pid}/children")?.Split(' ') is [{ Length: > 0 } child, ..]
            ? int.Parse(child, CultureInfo.InvariantCulture) : null;
    }

    static readonly LinuxKernel _looking = new(hand: null);

    /// <summary>Its exit code; null while it runs; <see cref="Unknown"/> where it has ended and the kernel has kept none.</summary>
    public int? Ended()
    {
        if (_reaped)
            return Unknown;
        var pid = Libc.WaitPid(_pid, out var status, Libc.NoHang);
        // waitpid(2): with SIGCHLD ignored a child that has ended leaves nothing to ask for. One that runs is there all the same.
        if (pid < 0 && Libc.LastError() == Errno.NoChild)
        {
            _reaped = true;
            return Unknown;
        }
        if (pid != _pid)
            return null;
        _reaped = true;
        return ExitCode(status);
    }

    /// <summary>Ends it alone, and waits for that; false: it has not ended within the limit.</summary>
    public bool End(TimeSpan limit)
    {
        // Not one that was asked for already: its PID may be another's by now.
        if (!_reaped)
            _ = Libc.SendSignal(_pid, Libc.Kill);
        for (var clock = Stopwatch.StartNew(); Ended() is null; Thread.Sleep(5))
        {
            if (clock.Elapsed >= limit)
                return false;
        }
        return true;
    }

    /// <summary>No exit code that a program can have: it has ended, and how is not known.</summary>
    public const int Unknown = -1;

    /// <summary>An exit code other than 0, in words.</summary>
    public static string Say(int exit) => exit == Unknown
        ? "it has ended, and the kernel kept no exit code: SIGCHLD is ignored"
        : $"it ended with exit code {exit} and no word";

    /// <summary>Ends it and what it started, as far as that stayed in its session's first group.</summary>
    public void Kill() => _ = Libc.SendSignal(-_pid, Libc.Kill);

    static int ExitCode(int status) => (status & 0x7f) == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f);

    /// <summary>Lets it go: at the end of its input it ends by itself. One that hangs in the kernel is left to init.</summary>
    public void Dispose()
    {
        Close(ToChild);
        Close(FromChild);
        (ToChild, FromChild) = (-1, -1);
        if (!_reaped)
            _ = Libc.WaitPid(_pid, out _, Libc.NoHang);
    }

    public const int Interrupted = 4;

    static void Close(int file)
    {
        if (file >= 0)
            _ = Libc.Close(file);
    }

    static void Check(int result, string call)
    {
        if (result < 0)
            throw new KernelRefused(call, Libc.LastError(), Errno.Say(Libc.LastError()));
    }
}
