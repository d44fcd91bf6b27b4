namespace GpuHandoff.Lab;

/// <summary>A lock between processes, given back by the kernel even when its holder is killed.</summary>
sealed class FileLock : IDisposable
{
    readonly FileStream file;

    FileLock(FileStream file) => this.file = file;

    public static FileLock Take(string path, TimeSpan limit, string what)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        var until = DateTime.UtcNow + limit;
        while (true)
        {
            try
            {
                // FileShare.None is an advisory flock on Linux.
                return new(new(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None));
            }
            catch (IOException) when (DateTime.UtcNow < until)
            {
                Thread.Sleep(200);
            }
            catch (IOException)
            {
                throw new LabUnavailable($"{what} is still going on elsewhere after {limit.TotalMinutes:f0} min",
                    $"see who holds it with `fuser -v {path}`");
            }
        }
    }

    public void Dispose() => file.Dispose();
}
