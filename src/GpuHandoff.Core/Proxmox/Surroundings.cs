using System.Collections.Immutable;
using GpuHandoff.Kernel;
using GpuHandoff.Survey;

namespace GpuHandoff.Proxmox;

/// <summary>What is known of a node and of one VM on it before anything is set up. A value: nothing in here looks again.</summary>
public sealed record Surroundings(int Vm, NodeGuests Guests, LocalStorage Storage)
{
    /// <summary>The VM's configuration, line by line; null: this node has no such VM.</summary>
    public VmLines? Settings { get; init; }

    /// <summary>The node that has it, where that is another one.</summary>
    public string? Elsewhere { get; init; }

    /// <summary>The program that the link leads to.</summary>
    public required string Program { get; init; }

    /// <summary>Why root should not run it, or go by its link: others could change it. Null: they could not.</summary>
    public string? NotSafe { get; init; }

    public FileStatus? Link { get; init; }

    /// <summary>Where the link leads.</summary>
    public string? LinkedTo { get; init; }

    /// <summary>The link leads to a program that can be run.</summary>
    public bool LinkWorks { get; init; }

    /// <summary>Folders that the link needs and that are not there, outermost first.</summary>
    public ImmutableArray<string> MissingFolders { get; init; } = [];

    public ImmutableArray<string> OtherNodes { get; init; } = [];

    public bool IsUnderHa { get; init; }

    public Version? QemuServer { get; init; }

    /// <summary>NVIDIA's driver is there, or modprobe finds it for the kernel that runs.</summary>
    public bool HasNvidia { get; init; } = true;

    /// <summary>Timers of ours that are installed and not enabled.</summary>
    public ImmutableArray<string> SleepingTimers { get; init; } = [];

    public ImmutableArray<Attachment> Attachments { get; init; } = [];

    /// <summary>Who has the lock of its file: a task of Proxmox; null: nobody.</summary>
    public string? LockedBy { get; init; }

    /// <summary>The mapping that the wish names; null: there is none.</summary>
    public PciMapping? Mapping { get; init; }

    /// <summary>What it says of this node and the host has otherwise: Proxmox starts no VM with any of its devices then.</summary>
    public ImmutableArray<string> StaleEntries { get; init; } = [];

    public SysPath Snippet() => Storage.Snippets / Proxmox.Snippet.Name;

    public VmFile? File() => Guests.Vms.FirstOrDefault(v => v.Id == Vm);

    public string Name() => File()?.Config?.Name is { } name ? $"VM {Vm} ({name})" : $"VM {Vm}";

    public bool Runs() => Guests.Running.Contains(Vm);

    public Attachment? Attached() => Attachments.FirstOrDefault(a => a.Vm == Vm);

    static readonly string[] _timers = ["gpu-handoff-recover.timer"];
    static readonly SysPath[] _unitFolders = [new("/etc/systemd/system"), new("/usr/lib/systemd/system"), new("/lib/systemd/system")];

    public static Surroundings Of(int vm, string? mapping, string program, ImmutableArray<Attachment> attachments, IKernel kernel)
    {
        var node = new ProxmoxNode(kernel);
        var guests = NodeGuests.Of(node, kernel);
        var storage = node.Storage();
        var link = storage.Snippets / Proxmox.Snippet.Name;
        var file = guests.Vms.FirstOrDefault(v => v.Id == vm);
        var to = kernel.Link(link);
        var mapped = mapping is null ? null : node.Mapping(mapping);
        return new(vm, guests, storage)
        {
            Settings = file is { Trouble: null } && node.Text(file.Path) is { } text ? VmLines.Parse(text) : null,
            Elsewhere = file is null ? node.NodeOf(vm, "qemu-server") : null,
            Program = program,
            LockedBy = HeldLocks.OfRoot(new($"/var/lock/qemu-server/lock-{vm}.conf"), kernel) is [var held, ..] ? $"process {held.Pid} has /var/lock/qemu-server/lock-{vm}.conf" : null,
            NotSafe = Trust.WhyNot(new(program), kernel) ?? Trust.WhyNot(storage.Snippets, kernel),
            Link = kernel.StatusOf(link),
            LinkedTo = to,
            LinkWorks = to is not null && kernel.StatusOf(Resolved(link, kernel))?.IsRunnable() == true,
            MissingFolders = [.. Above(storage.Snippets).Where(folder => kernel.StatusOf(new(folder)) is null)],
            OtherNodes = node.OtherNodes(),
            IsUnderHa = node.IsUnderHa(vm),
            QemuServer = DebianVersion.OfQemuServer(kernel),
            HasNvidia = kernel.Exists(Sys.Driver("nvidia")) || kernel.CanLoad("nvidia"),
            SleepingTimers =
            [
                .. _timers.Where(t => _unitFolders.Any(f => kernel.Exists(f / t)) && !kernel.Exists(_unitFolders[0] / "timers.target.wants" / t)),
            ],
            Attachments = attachments,
            Mapping = mapped,
            StaleEntries = mapped is null || guests.Node is null
                ? [] : [.. mapped.On(guests.Node).Select(entry => Allotment.WhyInvalid(mapped, entry, kernel)).OfType<string>()],
        };
    }

    // fs/namei.c gives up after 40.
    const int MostLinks = 40;

    /// <summary>Where a link leads in the end.</summary>
    static SysPath Resolved(SysPath path, IKernel kernel)
    {
        for (var i = 0; i < MostLinks && kernel.Link(path) is { } to; i++)
            path = to.StartsWith('/') ? new(to) : new SysPath(path.Text[..path.Text.LastIndexOf('/')]) / to;
        return path;
    }

    // /var, /var/lib, /var/lib/vz, /var/lib/vz/snippets
    static IEnumerable<string> Above(SysPath folder)
    {
        var here = "";
        foreach (var part in folder.Text.Split('/', StringSplitOptions.RemoveEmptyEntries))
            yield return here += $"/{part}";
    }
}
