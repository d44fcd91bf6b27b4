using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>The character devices under /dev, devtmpfs's own and those that somebody made with mknod.</summary>
sealed class Nodes
{
    readonly SortedDictionary<string, DeviceNode> nodes = new(StringComparer.Ordinal);

    public IEnumerable<KeyValuePair<string, DeviceNode>> All => nodes;

    public DeviceNode? Find(string path) => nodes.GetValueOrDefault(path);

    public void Put(string path, DeviceNode node) => nodes[path] = node;

    public void Drop(string path) => nodes.Remove(path);

    /// <summary>The names directly in a folder, with the nodes that are in it and null for deeper folders.</summary>
    public IEnumerable<(string Name, DeviceNode? Node)> In(string folder)
    {
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (var (path, node) in nodes)
        {
            if (!path.StartsWith(folder + "/", StringComparison.Ordinal))
                continue;
            var rest = path[(folder.Length + 1)..];
            var slash = rest.IndexOf('/');
            var name = slash < 0 ? rest : rest[..slash];
            if (seen.Add(name))
                yield return (name, slash < 0 ? node : null);
        }
    }
}
