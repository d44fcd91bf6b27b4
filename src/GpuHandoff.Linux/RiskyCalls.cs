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

    public static (int Errno, string Reason, string? Text) Modprobe(IReadOnlyList<string> arguments)
    {
        if (ModprobeProgram.Find() is not { } modprobe)
            return (Errno.NoEntry, ModprobeProgram.Missing, null);
        try
        {
            using var process = Spawned.Start(modprobe, arguments, talks: false, complains: true);
            var said = Drain(process.FromChild);
            var exit = process.Wait();
            return exit == 0 ? Done : (0, said.Length > 0 ? said : $"modprobe ended with exit code {exit} and no word", null);
        }
        catch (KernelRefused refused)
        {
            return (refused.Errno, refused.Reason, null);
        }
    }

    /// <summary>
    /// Runs a program to its end, or ends it when its budget is spent. That it could not be ended is an answer, too: then a
    /// call of its own hangs in the kernel.
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
                return new ProgramEnd.Ended(exit, Encoding.UTF8.GetString(said.ToArray()).Replace('\0', ' ').Trim());
            process.Kill();
            return Finish(process, said, _untilKilled) is null
                ? new ProgramEnd.Silent()
                : new ProgramEnd.Refused(0, $"it ran longer than {budget.TotalSeconds:0.#} s and was ended");
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
    static readonly TimeSpan _untilKilled = TimeSpan.FromSeconds(1);

    static bool Watch(int file, TimeSpan time)
    {
        var watched = new Watched { File = file, Wanted = Libc.Readable };
        return Libc.Poll(ref watched, 1, (int)time.TotalMilliseconds) > 0;
    }

    static string Drain(int file)
    {
        var said = new MemoryStream();
        Span<byte> buffer = stackalloc byte[1024];
        while (true)
        {
            var got = Libc.Read(file, buffer, buffer.Length);
            if (got < 0 && Libc.LastError() == Spawned.Interrupted)
                continue;
            if (got <= 0)
                return Encoding.UTF8.GetString(said.ToArray()).Trim();
            // Read on to the end, or modprobe would block on a full pipe; keep what a message can bear.
            if (said.Length < LongestComplaint)
                said.Write(buffer[..(int)got]);
        }
    }

    static (int Errno, string Reason, string? Text) Failed()
    {
        var errno = Libc.LastError();
        return (errno, Errno.Say(errno), null);
    }
}
