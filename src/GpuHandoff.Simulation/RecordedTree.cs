using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>
/// A machine recorded as a folder (<c>sys/</c>, <c>proc/</c>, …), to be looked at and never changed: every write is
/// refused with EROFS. Links are followed inside the folder only, absolute ones and those with too many dots included.
/// </summary>
/// <remarks>
/// <list type="bullet">
/// <item><c>NAME.present</c> stands for a file NAME whose content was not recorded: it exists, and reads as nothing.</item>
/// <item><c>RECORD/dev-nodes.txt</c> lists the nodes of /dev, a line for each: <c>0o20666 195:0 /dev/nvidia0</c>.</item>
/// <item>
/// <see cref="CanLoad"/> says yes to what was loaded, or built in with a folder in /sys/module, and to what lies in
/// lib/modules, as a file or as a line of modules.dep or modules.alias. A recording without lib/modules knows no more.
/// </item>
/// </list>
/// </remarks>
public sealed class RecordedTree : IKernel
{
    const string Unrecorded = ".present";
    const uint CharacterDevice = 0x2000;
    const uint FileType = 0xf000;

    readonly DirectoryInfo root;
    readonly Nodes nodes = new();
    readonly Tree tree;
    readonly HashSet<string> loadable;
    TimeSpan paused;

    public RecordedTree(string root)
    {
        this.root = new(root);
        if (!this.root.Exists)
            throw new DirectoryNotFoundException($"there is no recorded machine at {root}");
        ReadNodes();
        tree = new(new(Top));
        loadable = [.. Loadable().Select(Modules.Normal)];
    }

    /// <summary>A recording has no clock: only what was paused passes.</summary>
    public TimeSpan Uptime => TimeSpan.FromSeconds(1000) + paused;

    public string? Read(SysPath file) => tree.Find(file.Text) is TextFile text ? text.Read()?.TrimEnd('\n') : null;

    public string? ReadSlow(SysPath file, TimeSpan budget) => Read(file);

    public byte[]? ReadBytes(SysPath file, int count) => (tree.Find(file.Text) as TextFile)?.First(count);

    public IReadOnlyList<string> List(SysPath folder) => tree.Find(folder.Text) is Folder found
        ? [.. found.Children().Select(child => child.Name).Order(StringComparer.Ordinal)]
        : [];

    public string? Link(SysPath link) => tree.Find(link.Text, follow: false) is LinkTo found ? found.Target : null;

    public bool Exists(SysPath path) => tree.Find(path.Text, follow: false) is not null;

    /// <summary>A recording has names and texts, and no inodes.</summary>
    public FileIdentity? IdentityOf(SysPath path) => null;

    public DeviceNode? NodeAt(SysPath path) => tree.Find(path.Text) is NodeFile file ? file.Node : null;

    public bool CanLoad(string module) => loadable.Contains(Modules.Normal(module));

    public void Pause(TimeSpan time) => paused += time;

    public void Write(SysPath file, string text, TimeSpan budget, LastLook? look = null) =>
        throw ReadOnly($"write \"{text.Replace("\n", "\\n")}\" to {file}");

    public void LoadModule(string module, IReadOnlyList<string> parameters, TimeSpan budget) =>
        throw ReadOnly(string.Join(' ', (string[])["modprobe", module, .. parameters]));

    public void UnloadModule(string module, TimeSpan budget) => throw ReadOnly($"rmmod {module}");

    public void MakeNode(SysPath path, DeviceNode node) => throw ReadOnly($"mknod {path}");

    public void RemoveNode(SysPath path) => throw ReadOnly($"unlink {path}");

    /// <summary>A recording has no owners: all of it is its machine's root's.</summary>
    public FileStatus? StatusOf(SysPath path) => tree.Find(path.Text, follow: false) switch
    {
        null => null,
        Folder => new(FileKind.Folder, 0, 0x1ed),
        LinkTo => new(FileKind.Link, 0, 0x1ff),
        TextFile => new(FileKind.File, 0, 0x1ed),
        _ => new(FileKind.Other, 0, 0x180),
    };

    public void MakeFolder(SysPath folder) => throw ReadOnly($"mkdir {folder}");

    public void RemoveFolder(SysPath folder) => throw ReadOnly($"rmdir {folder}");

    public void MakeLink(SysPath link, string target) => throw ReadOnly($"symlink {link} → {target}");

    public void RemoveLink(SysPath link) => throw ReadOnly($"unlink {link}");

    public ProgramResult RunProgram(
        string program, IReadOnlyList<string> arguments, TimeSpan budget, string input = "", IReadOnlyList<string>? environment = null) =>
        throw ReadOnly(string.Join(' ', (string[])[program, .. arguments]));

    public void Signal(int pid, ulong startedAt, ProcessSignal signal) => throw ReadOnly($"send {signal} to process {pid}");

    public string Converse(SysPath socket, string text, Func<string, bool> isAll, TimeSpan budget) => throw ReadOnly($"ask {socket}");

    public void SetAffinity(int thread, IReadOnlyList<int> processors) => throw ReadOnly($"sched_setaffinity of thread {thread}");

    static KernelRefused ReadOnly(string call) => new(call, Errno.ReadOnly, "a recorded machine cannot be changed");

    IEnumerable<(string, Entry)> Top()
    {
        foreach (var child in Children(root).Where(child => child.Name != "RECORD"))
            yield return child;
        if (nodes.All.Any() && !Directory.Exists(Path.Combine(root.FullName, "dev")))
            yield return ("dev", Dev("/dev"));
    }

    static IEnumerable<(string Name, Entry Entry)> Children(DirectoryInfo folder) =>
        folder.EnumerateFileSystemInfos().Select(static info => info switch
        {
            { LinkTarget: { } target } => (info.Name, new LinkTo(target)),
            DirectoryInfo deeper => (info.Name, new Folder(() => Children(deeper))),
            _ when info.Name.EndsWith(Unrecorded, StringComparison.Ordinal) =>
                (info.Name[..^Unrecorded.Length], new TextFile(static () => null)),
            _ => (info.Name, (Entry)new TextFile(() => File.ReadAllText(info.FullName)) { Bytes = () => File.ReadAllBytes(info.FullName) }),
        });

    Folder Dev(string folder) => new(() => nodes.In(folder).Select(child =>
        (child.Name, child.Node is { } node ? (Entry)new NodeFile(node) : Dev($"{folder}/{child.Name}"))));

    void ReadNodes()
    {
        foreach (var line in Lines(Path.Combine(root.FullName, "RECORD", "dev-nodes.txt")))
        {
            // 0o20666 195:0 /dev/nvidia0
            if (line.Split([' ', ':'], 4, StringSplitOptions.RemoveEmptyEntries) is not [var octal, var major, var minor, var path]
                || !octal.StartsWith("0o", StringComparison.Ordinal))
                continue;
            var mode = Convert.ToUInt32(octal[2..], 8);
            if ((mode & FileType) == CharacterDevice)
                nodes.Put(path, new(Number(major), Number(minor), mode & 0x1ff, 0, 0));
        }

        static uint Number(string text) => uint.Parse(text, CultureInfo.InvariantCulture);
    }

    IEnumerable<string> Loadable()
    {
        // nvidia 14299136 - - Live 0xffffffffc0400000 (O)
        foreach (var line in Lines(Path.Combine(root.FullName, "proc", "modules")))
            yield return line.Split(' ')[0];
        foreach (var module in List(Sys.Modules))
            yield return module;
        var files = new DirectoryInfo(Path.Combine(root.FullName, "lib", "modules"));
        if (!files.Exists)
            yield break;
        foreach (var file in files.EnumerateFiles("*.ko*", SearchOption.AllDirectories))
            yield return ModuleName(file.Name);
        // kernel/drivers/vfio/pci/vfio-pci.ko.zst: kernel/drivers/vfio/pci/vfio-pci-core.ko.zst …
        foreach (var line in files.EnumerateFiles("modules.dep", SearchOption.AllDirectories).SelectMany(file => Lines(file.FullName)))
            yield return ModuleName(line.Split(':')[0]);
        // alias nvidia nvidia_current_open
        foreach (var line in files.EnumerateFiles("modules.alias", SearchOption.AllDirectories).SelectMany(file => Lines(file.FullName)))
        {
            if (line.Split(' ') is ["alias", var alias, _])
                yield return alias;
        }
    }

    static string ModuleName(string path)
    {
        var name = path[(path.LastIndexOf('/') + 1)..];
        var dot = name.IndexOf(".ko", StringComparison.Ordinal);
        return dot < 0 ? name : name[..dot];
    }

    static IEnumerable<string> Lines(string file) => File.Exists(file) ? File.ReadLines(file).Where(line => line.Length > 0) : [];
}
