using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Runs;

namespace GpuHandoff.Linux;

/// <summary>
/// One hand-over at a time on a host: the modules are everybody's, and whether they may go depends on every card. The
/// kernel drops the lock when its holder ends, however that comes about.
/// </summary>
public sealed class RunLock : IDisposable
{
    const string Folder = "/run/gpu-handoff";

    static readonly TimeSpan _between = TimeSpan.FromMilliseconds(50);

    readonly FileStream _file;

    RunLock(FileStream file) => _file = file;

    /// <summary>Takes the lock, waiting no longer than <paramref name="limit"/>; null where its holder has it still.</summary>
    /// <param name="waits">Told once whom we wait for, where we have to.</param>
    public static RunLock? Take(IKernel kernel, TimeSpan limit, Action<string> waits, CancellationToken stop)
    {
        var path = Path.Combine(Folder, "lock");
        var until = kernel.Uptime + limit;
        var told = false;
        while (true)
        {
            try
            {
                Directory.CreateDirectory(Folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
                // FileShare.None takes flock(2) on Linux.
                var file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
                file.SetLength(0);
                file.Write(System.Text.Encoding.ASCII.GetBytes(Environment.ProcessId.ToString(CultureInfo.InvariantCulture)));
                file.Flush();
                return new(file);
            }
            catch (IOException) when (File.Exists(path))
            {
                if (!told)
                    waits(Holder(kernel));
                told = true;
                if (kernel.Uptime >= until || stop.IsCancellationRequested)
                    return null;
                kernel.Pause(_between);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new LedgerRefused($"{path} cannot be made: {e.Message}", "look at /run: is it full, or read-only?", e);
            }
        }
    }

    /// <summary>The process that has the lock: <c>4211 gpu-handoff</c>.</summary>
    public static string Holder(IKernel kernel)
    {
        var pid = kernel.Read(new SysPath(Folder) / "lock")?.Trim();
        return pid is { Length: > 0 } && kernel.Read(Sys.Proc / pid / "comm") is { } command ? $"{pid} {command}" : "another run";
    }

    public void Dispose() => _file.Dispose();
}
