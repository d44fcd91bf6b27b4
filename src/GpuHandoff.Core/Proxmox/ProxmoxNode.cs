using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Kernel;

namespace GpuHandoff.Proxmox;

/// <summary>A guest's configuration file as this node has it.</summary>
/// <param name="Config">Null: it cannot be read, and the trouble says why.</param>
public sealed record VmFile(int Id, SysPath Path, VmConfig? Config, string? Trouble = null);

/// <summary>The files of this node of a Proxmox cluster; a host that is alone is a cluster of one.</summary>
/// <remarks>
/// They lie in pmxcfs, a process's file system (FUSE): it may hang, or have died (ENOTCONN), and nobody here is at fault.
/// What it does not answer in time is a <see cref="KernelSilent"/>, what it refuses a <see cref="KernelRefused"/>, and
/// text that is no such file a <see cref="NotProxmox"/>.
/// </remarks>
public sealed class ProxmoxNode(IKernel kernel)
{
    public static SysPath Cluster { get; } = new("/etc/pve");
    public static SysPath Vms { get; } = Cluster / "qemu-server";
    public static SysPath Containers { get; } = Cluster / "lxc";
    public static SysPath MappingFile { get; } = Cluster / "mapping/pci.cfg";
    public static SysPath StorageFile { get; } = Cluster / "storage.cfg";
    public static SysPath ReservationFile { get; } = new("/run/qemu-server/pci-id-reservations");

    /// <summary>PVE numbers guests from 100 up (pve-common, JSONSchema.pm:pve_verify_vmid).</summary>
    public const int LeastId = 100;

    public const int MostId = 999_999_999;

    /// <summary>The largest file that the cluster's file system takes (pve-cluster, pmxcfs/memdb.h: MEMDB_MAX_FILE_SIZE).</summary>
    public const int MostBytes = 1 << 20;

    /// <summary>
    /// How long a file may take; null: as long as it likes, and without a helper process. For who runs where Proxmox has read
    /// the same file a moment ago and would hang itself.
    /// </summary>
    public TimeSpan? Patience { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Whether this is a host of Proxmox VE: pmxcfs is mounted, or a recording has its files.</summary>
    public bool IsThere() => Text(Cluster / ".version") is not null || kernel.Exists(Vms) || kernel.Exists(Cluster / "nodes");

    /// <summary>This node's name, as mappings and the cluster have it; null: nobody knows.</summary>
    /// <remarks>pve-common, PVE/INotify.pm:nodename: what uname says, up to the first dot.</remarks>
    public string? Name() => kernel.Read(new("/proc/sys/kernel/hostname")) is { Length: > 0 } host
        ? host.Split('.')[0]
        // A recording has no hostname: pmxcfs's own link tells as much.
        : kernel.Link(Cluster / "local")?.Split('/')[^1];

    public static SysPath PathOf(int vm) => Vms / $"{vm.ToString(CultureInfo.InvariantCulture)}.conf";

    /// <summary>A VM's configuration; null: this node has no such VM.</summary>
    /// <exception cref="NotProxmox">It is larger than pmxcfs takes a file, so it is none.</exception>
    public VmConfig? Config(int vm) => ConfigAt(PathOf(vm));

    /// <summary>The same of one that lies elsewhere: with another node, while the VM is on its way from there.</summary>
    public VmConfig? ConfigAt(SysPath path) => Text(path) is { } text ? VmConfig.Parse(text) : null;

    /// <summary>Every VM of this node, by number. One whose file cannot be read is among them with its trouble.</summary>
    public ImmutableArray<VmFile> Configs()
    {
        Wake();
        return [.. Ids(Vms).Select(FileOf)];
    }

    /// <summary>Numbers of the VMs or the containers of this node.</summary>
    public IEnumerable<int> Ids(SysPath folder) => kernel.List(folder)
        .Select(name => name.EndsWith(".conf", StringComparison.Ordinal) && TryId(name[..^".conf".Length], out var id) ? id : 0)
        .Where(id => id != 0)
        .Order();

    /// <summary>The mapping of a name; null: there is none.</summary>
    /// <exception cref="NotProxmox">The file is too large, and named in the words.</exception>
    public PciMapping? Mapping(string id) => Named(MappingFile) is { } text ? PciMappings.Find(text, id) : null;

    /// <summary>What Proxmox keeps for its VMs. The file is replaced as a whole, so no lock is needed.</summary>
    /// <exception cref="NotProxmox">The file is too large, and named in the words.</exception>
    public ImmutableArray<Reservation> Reserved() => Reservations.Parse(Named(ReservationFile) ?? "");

    /// <summary>The storage called <c>local</c>, which every node has.</summary>
    /// <exception cref="NotProxmox">The file is too large, and named in the words.</exception>
    public LocalStorage Storage() => LocalStorage.Parse(Named(StorageFile) ?? "");

    /// <summary>Other nodes of the cluster.</summary>
    public ImmutableArray<string> OtherNodes() => [.. kernel.List(Cluster / "nodes").Where(n => n != Name())];

    /// <summary>The node that has a VM or a container of this number; null: none has.</summary>
    public string? NodeOf(int guest, string kind) =>
        kernel.List(Cluster / "nodes").FirstOrDefault(n => kernel.Exists(Cluster / "nodes" / n / kind / $"{guest}.conf"));

    // vm: 101
    // 	state started
    /// <summary>Whether Proxmox's high availability starts and stops this VM.</summary>
    public bool IsUnderHa(int vm) => Named(Cluster / "ha/resources.cfg") is { } text
        && text.Split('\n').Any(line => line.TrimEnd() == $"vm: {vm}");

    /// <summary>A file's text; null: there is none.</summary>
    /// <exception cref="NotProxmox">It is larger than pmxcfs takes a file, so it is none of Proxmox's.</exception>
    public string? Text(SysPath file)
    {
        // .version and /run are no files of the cluster's database, and far smaller.
        var text = Patience is { } patience ? kernel.ReadSlow(file, patience) : kernel.Read(file);
        // Characters are never more than bytes.
        return text is not { Length: > MostBytes } ? text
            : throw new NotProxmox($"it has more than {MostBytes >> 20} MiB, which is more than Proxmox takes");
    }

    /// <summary>The same of a file that the caller does not speak of.</summary>
    string? Named(SysPath file)
    {
        try
        {
            return Text(file);
        }
        catch (NotProxmox trouble)
        {
            throw new NotProxmox($"{file}: {trouble.Message}");
        }
    }

    /// <summary>One to nine digits, from 100 on, without zeros in front.</summary>
    public static bool TryId(string text, out int id)
    {
        id = 0;
        return text is [>= '1' and <= '9', ..] && int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out id)
            && id is >= LeastId and <= MostId;
    }

    /// <summary>
    /// Lists have no time limit of their own: a pmxcfs that hangs shall be met at a file, which has one, and not there.
    /// </summary>
    /// <remarks>pve-cluster, src/pmxcfs/status.c: .version is made in memory for each reader, cluster or not.</remarks>
    void Wake() => _ = Text(Cluster / ".version");

    VmFile FileOf(int vm)
    {
        var path = PathOf(vm);
        try
        {
            // Moved to another node between the list and the look.
            return Config(vm) is { } config ? new(vm, path, config) : new(vm, path, null, "it is gone");
        }
        catch (NotProxmox trouble)
        {
            return new(vm, path, null, trouble.Message);
        }
        catch (KernelRefused refused)
        {
            return new(vm, path, null, refused.Reason);
        }
    }
}
