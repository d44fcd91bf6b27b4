using System.Collections.Immutable;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>The calls that may block inside the kernel. Only the hand makes them.</summary>
/// <remarks>Each answers with an errno and a reason; an empty reason is success.</remarks>
static class RiskyCalls
{
    const int LongestComplaint = 4000;

    static readonly (int Errno, string Reason, string? Text) Done = (0, "", null);
    static readonly LinuxKernel _looking = new(hand: null);

    public static (int Errno, string Reason, string? Text) Read(string path)
    {
        try
        {
            return Done with { Text = new LinuxKernel(hand: null).Read(new(path)) };
        }
        catch (KernelRefused refused)
        {
            return (refused.Errno, refused.Reason, null);
        }
    }

    /// <summary>The first bytes in hexadecimal: a message is text.</summary>
    public static (int Errno, string Reason, string? Text) ReadBytes(string path, int count)
    {
        var file = Libc.Open(path, Libc.ReadOnly | Libc.CloseOnExec);
        if (file < 0)
            return Libc.LastError() is Errno.NoEntry or Errno.NotDirectory ? Done : Failed();
        try
        {
            var bytes = new byte[Math.Clamp(count, 0, 4096)];
            var got = Libc.Read(file, bytes, bytes.Length);
            return got < 0 ? Failed() : Done with { Text = Convert.ToHexString(bytes, 0, (int)got) };
        }
        finally
        {
            _ = Libc.Close(file);
        }
    }

    /// <summary>No errno of the kernel's: what had to hold right before the write did not hold.</summary>
    public const int LastLookFailed = -1;

    /// <summary>Writes where a last look allows it: the file is open by then, so that nothing but write(2) is left to do after it.</summary>
    /// <param name="empty">The folder that must have no entries; empty: none.</param>
    /// <param name="counts">Modules with the users that they must show: <c>nvidia=0</c>.</param>
    public static (int Errno, string Reason, string? Text) Write(string path, string text, string empty, IReadOnlyList<string> counts)
    {
        var modules = ImmutableArray.CreateBuilder<ModuleUsers>();
        foreach (var count in counts)
        {
            if (count.Split('=') is not [{ Length: > 0 } module, var number] || !int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out var users))
                return (Errno.Invalid, $"\"{count}\" is no module with its users", null);
            modules.Add(new(module, users));
        }
        return Write(path, text, new LastLook(empty.Length > 0 ? new(empty) : null, modules.ToImmutable()));
    }

    public static (int Errno, string Reason, string? Text) Write(string path, string text, LastLook? look = null)
    {
        var file = Libc.Open(path, Libc.WriteOnly | Libc.CloseOnExec);
        if (file < 0)
            return Failed();
        try
        {
            var bytes = Encoding.UTF8.GetBytes(text);
            if (look?.WhyNot(_looking) is { } use)
                return (LastLookFailed, use, null);
            var written = Libc.Write(file, bytes, bytes.Length);
            return written < 0 ? Failed()
                : written == bytes.Length ? Done
                : (Errno.InputOutput, $"only {written} of {bytes.Length} bytes were taken", null);
        }
        finally
        {
            _ = Libc.Close(file);
        }
    }

    public static (int Errno, string Reason, string? Text) UnloadModule(string module) =>
        Libc.DeleteModule(module, Libc.NonBlocking) == 0 ? Done : Failed();

    public static (int Errno, string Reason, string? Text) Modprobe(IReadOnlyList<string> arguments) =>
        ModprobeProgram.Find() is { } modprobe ? Load(modprobe, arguments) : (Errno.NoEntry, ModprobeProgram.Missing, null);

    /// <summary>Runs modprobe for as long as it takes: a module's probe cannot be ended.</summary>
    internal static (int Errno, string Reason, string? Text) Load(string modprobe, IReadOnlyList<string> arguments)
    {
        try
        {
            using var process = Spawned.Start(modprobe, arguments, talks: false, complains: true);
            var said = new MemoryStream();
            // An install line of modprobe.d may leave a daemon that keeps the pipe open: modprobe's end counts.
            var exit = Finish(process, said, TimeSpan.MaxValue);
            var words = Encoding.UTF8.GetString(said.ToArray()).Trim();
            return exit == 0 ? Done : (0, words.Length > 0 ? words : $"modprobe: {Spawned.Say(exit!.Value)}", null);
        }
        catch (KernelRefused refused)
        {
            return (refused.Errno, refused.Reason, null);
        }
    }

    /// <summary>
    /// Runs a program to its end, or ends it when its budget is spent. That it could not be ended is an answer, too: then a
    /// call of its own hangs in the kernel, on a dead NFS or the like.
    /// </summary>
    public static ProgramEnd Run(
        string program, IReadOnlyList<string> arguments, TimeSpan budget, string input, IReadOnlyList<string> environment)
    {
        try
        {
            using var process = Spawned.Start(
                program, arguments, talks: input.Length > 0, complains: true, [.. Spawned.BareEnvironment, .. environment]);
            process.Tell(input);
            var said = new MemoryStream();
            if (Finish(process, said, budget) is { } exit)
            {
                return exit == Spawned.Unknown
                    ? new ProgramEnd.Refused(0, Spawned.Say(exit))
                    : new ProgramEnd.Ended(exit, Encoding.UTF8.GetString(said.ToArray()).Replace('\0', ' ').Trim());
            }
            process.Kill();
            return new ProgramEnd.Silent(process.Pid, IsOver: Finish(process, said, UntilKilled) is not null);
        }
        catch (KernelRefused refused)
        {
            return new ProgramEnd.Refused(refused.Errno, refused.Reason);
        }
    }

    /// <summary>
    /// Reads what it says until it has ended: not until the pipe is closed, because a daemon that it started may keep that
    /// open for ever. Null where the time is up.
    /// </summary>
    static int? Finish(Spawned process, MemoryStream said, TimeSpan time)
    {
        var clock = Stopwatch.StartNew();
        Span<byte> buffer = stackalloc byte[1024];
        var closed = false;
        while (true)
        {
            // First whether it has ended, then what is left to read: nothing that it said is lost.
            var exit = process.Ended();
            while (!closed && Watch(process.FromChild, exit is null ? _turn : TimeSpan.Zero))
            {
                var got = Libc.Read(process.FromChild, buffer, buffer.Length);
                closed = got == 0;
                if (got > 0 && said.Length < LongestComplaint)
                    said.Write(buffer[..(int)got]);
                if (exit is null)
                    break;
            }
            if (exit is not null)
                return exit;
            if (clock.Elapsed >= time)
                return null;
            if (closed)
                Thread.Sleep(1);
        }
    }

    static readonly TimeSpan _turn = TimeSpan.FromMilliseconds(20);

    /// <summary>How long a program that was killed gets to be gone: on a host that swaps that takes seconds.</summary>
    internal static readonly TimeSpan UntilKilled = TimeSpan.FromSeconds(5);

    static bool Watch(int file, TimeSpan time)
    {
        var watched = new Watched { File = file, Wanted = Libc.Readable };
        return Libc.Poll(ref watched, 1, (int)time.TotalMilliseconds) > 0;
    }

    static (int Errno, string Reason, string? Text) Failed()
    {
        var errno = Libc.LastError();
        return (errno, Errno.Say(errno), null);
    }
}
