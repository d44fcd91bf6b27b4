using GpuHandoff.Kernel;

namespace GpuHandoff.Simulation;

/// <summary>Files that are just files: what others wrote below /etc, /run and /var. Each has an inode, and may be locked.</summary>
public sealed class PlainFiles
{
    const uint DeviceMajor = 0;
    const uint DeviceMinor = 0x19;

    readonly SimulatedKernel kernel;
    readonly SortedDictionary<string, Entry> entries = new(StringComparer.Ordinal);
    readonly List<Held> locks = [];
    ulong lastInode = 1000;

    internal PlainFiles(SimulatedKernel kernel) => this.kernel = kernel;

    public void Write(string path, string text)
    {
        // Written anew in place: who has it locked keeps his lock.
        var inode = entries.GetValueOrDefault(path) is FileOnDisk old ? old.Identity.Inode : ++lastInode;
        entries[path] = new FileOnDisk(text, new(DeviceMajor, DeviceMinor, inode, kernel.BootedAt + kernel.Uptime));
    }

    public void Link(string path, string target) => entries[path] = new LinkTo(target);

    /// <summary>An empty folder; one with something in it is there by that.</summary>
    public void Folder(string path) => entries[path] = new Folder(() => In(path));

    /// <summary>All that is here, a line for each.</summary>
    public string Describe() => string.Concat(entries.Select(e => e.Value switch
    {
        FileOnDisk file => $"{e.Key}: {file.Text.Replace("\n", "\\n", StringComparison.Ordinal)}\n",
        LinkTo link => $"{e.Key} → {link.Target}\n",
        _ => $"{e.Key}/\n",
    }));

    public string? Read(string path) => (entries.GetValueOrDefault(path) as FileOnDisk)?.Text;

    public bool Has(string path) => entries.ContainsKey(path);

    public void Remove(string path) => entries.Remove(path);

    /// <summary>flock(2) by a process, until disposed. The file is made where it is missing.</summary>
    public IDisposable Lock(string path, int pid, bool shared = false)
    {
        if (!Has(path))
            Write(path, "");
        var held = new Held(locks, pid, ((FileOnDisk)entries[path]).Identity, shared);
        locks.Add(held);
        return held;
    }

    public bool IsLocked(string path) => entries.GetValueOrDefault(path) is FileOnDisk file && locks.Exists(held => held.Is(file.Identity));

    /// <summary>The lines of /proc/locks without their numbers.</summary>
    internal IEnumerable<string> Locks => locks.Select(held => held.ToString());

    internal IEnumerable<(string Name, Entry Entry)> In(string folder)
    {
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (var (path, entry) in entries.ToList())
        {
            if (!path.StartsWith(folder + "/", StringComparison.Ordinal))
                continue;
            var rest = path[(folder.Length + 1)..];
            var slash = rest.IndexOf('/', StringComparison.Ordinal);
            var name = slash < 0 ? rest : rest[..slash];
            if (seen.Add(name))
                yield return (name, slash < 0 ? entry : new Folder(() => In($"{folder}/{name}")));
        }
    }

    sealed class Held(List<Held> all, int pid, FileIdentity file, bool shared) : IDisposable
    {
        public bool Is(FileIdentity other) => file.Inode == other.Inode;

        public override string ToString() =>
            $"FLOCK  ADVISORY  {(shared ? "READ " : "WRITE")} {pid} {file.Major:x2}:{file.Minor:x2}:{file.Inode} 0 EOF";

        public void Dispose() => all.Remove(this);
    }
}
