using GpuHandoff.Kernel;

namespace GpuHandoff.Simulation;

/// <summary>Ordinary folders and links, as a program sets them up.</summary>
public sealed partial class SimulatedKernel
{
    readonly Dictionary<string, FileStatus> owned = new(StringComparer.Ordinal);

    /// <summary>Somebody else than root has a path, or may write it.</summary>
    public void Own(string path, uint owner, uint mode) =>
        owned[path] = StatusOf(new(path)) is { } status ? status with { Owner = owner, Mode = mode } : throw new ArgumentException($"there is no {path}", nameof(path));

    public FileStatus? StatusOf(SysPath path) => tree.Find(path.Text, follow: false) switch
    {
        null => null,
        _ when owned.TryGetValue(path.Text, out var status) => status,
        Folder => new(FileKind.Folder, 0, 0x1ed),
        LinkTo => new(FileKind.Link, 0, 0x1ff),
        TextFile => new(FileKind.File, 0, path.Text.Contains("/sbin/", StringComparison.Ordinal) ? 0x1edu : 0x1a4u),
        _ => new(FileKind.Other, 0, 0x180),
    };

    public void MakeFolder(SysPath folder) => Change($"mkdir {folder}", $"mkdir {folder}", NodeBudget, null, () =>
    {
        if (Exists(folder))
            throw new Refusal(Errno.Exists);
        if (StatusOf(new(folder.Text[..folder.Text.LastIndexOf('/')]))?.Kind != FileKind.Folder)
            throw new Refusal(Errno.NoEntry);
        Files.Folder(folder.Text);
    });

    public void RemoveFolder(SysPath folder) => Change($"rmdir {folder}", $"rmdir {folder}", NodeBudget, null, () =>
    {
        if (List(folder) is not [])
            throw new Refusal(Errno.NotEmpty);
        Files.Remove(folder.Text);
    });

    public void MakeLink(SysPath link, string target) => Change($"symlink {link} {target}", $"symlink {link} → {target}", NodeBudget, null, () =>
    {
        if (Exists(link) && Link(link) is null)
            throw new Refusal(Errno.Exists);
        if (StatusOf(new(link.Text[..link.Text.LastIndexOf('/')]))?.Kind != FileKind.Folder)
            throw new Refusal(Errno.NoEntry);
        Files.Link(link.Text, target);
    });

    public void RemoveLink(SysPath link) => Change($"unlink {link}", $"unlink {link}", NodeBudget, null, () =>
    {
        if (Exists(link) && Link(link) is null)
            throw new Refusal(Errno.Exists);
        Files.Remove(link.Text);
    });
}
