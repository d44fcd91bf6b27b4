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

    public static (int Errno, string Reason, string? Text) Write(string path, string text)
    {
        var file = Libc.Open(path, Libc.WriteOnly | Libc.CloseOnExec);
        if (file < 0)
            return Failed();
        try
        {
            var bytes = Encoding.UTF8.GetBytes(text);
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
