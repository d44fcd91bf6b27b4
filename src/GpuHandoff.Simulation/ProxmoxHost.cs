using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>
/// Proxmox VE's files and processes on a simulated host: configs of VMs in the cluster's file system, what it keeps in /run
/// of those that run, and their QEMUs. Single moves, for tests; <see cref="Qm"/> makes whole life cycles of them.
/// </summary>
public sealed class ProxmoxHost
{
    readonly SimulatedKernel kernel;
    readonly Dictionary<string, SimulatedVm> vms = new(StringComparer.Ordinal);
    readonly Dictionary<string, SimulatedProcess> qemus = new(StringComparer.Ordinal);

    internal ProxmoxHost(SimulatedKernel kernel) => this.kernel = kernel;

    /// <summary>The process whose locks are Proxmox's: a worker of pvedaemon.</summary>
    public const int Worker = 1717;

    public static string PidFile(string vm) => $"/run/qemu-server/{vm}.pid";

    public static string RebootMarker(string vm) => $"/run/qemu-server/{vm}.reboot";

    public static string CleanupFlag(string vm) => $"/run/qemu-server/{vm}.cleanup";

    public static string LockFile(string vm) => $"/run/lock/qemu-server/lock-{vm}.conf";

    /// <summary>The version of the package; null: it is not installed.</summary>
    public string? QemuServer { get; set; } = "9.2.6";

    public const string Reservations = "/run/qemu-server/pci-id-reservations";

    public const string Mappings = "/etc/pve/mapping/pci.cfg";

    /// <summary>A VM's config on this node, or another's.</summary>
    public string ConfigOf(string vm, string? node = null) => $"/etc/pve/nodes/{node ?? kernel.HostName}/qemu-server/{vm}.conf";

    /// <summary>Writes /etc/pve/qemu-server/ID.conf as it is on this node; /etc/pve with its links comes with the first one.</summary>
    public void Write(string vm, string config, string? node = null)
    {
        Install();
        kernel.Files.Write(ConfigOf(vm, node), config);
    }

    public string? Config(string vm) => kernel.Files.Read(ConfigOf(vm));

    /// <summary>The VM is destroyed, or has gone to another node.</summary>
    public void Remove(string vm) => kernel.Files.Remove(ConfigOf(vm));

    /// <summary>/etc/pve/mapping/pci.cfg</summary>
    public void WriteMappings(string text)
    {
        Install();
        kernel.Files.Write(Mappings, text);
    }

    /// <summary>/etc/pve/storage.cfg</summary>
    public void WriteStorages(string text)
    {
        Install();
        kernel.Files.Write("/etc/pve/storage.cfg", text);
    }

    /// <summary>A node of the cluster without any VM.</summary>
    public void Install()
    {
        if (kernel.Files.Has("/etc/pve/local"))
            return;
        kernel.Programs.TryAdd("/usr/bin/dpkg-query", new(static _ => true, _ => QemuServer is { } version
            ? new(0, version) : new(1, "dpkg-query: no packages found matching qemu-server")));
        kernel.Programs.TryAdd(Kernel.Programs.Qm, new QmSet(kernel).Program);
        kernel.Files.Folder("/var/lib/vz");
        kernel.Files.Link("/etc/pve/local", $"nodes/{kernel.HostName}");
        kernel.Files.Link("/etc/pve/qemu-server", $"nodes/{kernel.HostName}/qemu-server");
        kernel.Files.Write("/etc/hostname", kernel.HostName);
    }

    /// <summary>A worker has the VM's lock, until disposed.</summary>
    public IDisposable Lock(string vm, bool shared = false, int? pid = null)
    {
        if (pid is null && kernel.RunningProcesses.All(process => process.Pid != Worker))
            kernel.StartProcess("pvedaemon worker", "/system.slice/pvedaemon.service", Worker);
        return kernel.Files.Lock(LockFile(vm), pid ?? Worker, shared);
    }

    public bool IsLocked(string vm) => kernel.Files.IsLocked(LockFile(vm));

    /// <summary>The VM's QEMU; null where none runs.</summary>
    public SimulatedProcess? Qemu(string vm) =>
        qemus.GetValueOrDefault(vm) is { } process && kernel.RunningProcesses.Contains(process) ? process : null;

    /// <summary>QEMU comes up with functions that are on vfio-pci, and its pidfile with it; throws what QEMU would say.</summary>
    /// <remarks>qemu-server, Helpers.pm:vm_running_locally: a PID counts whose command line has that pidfile.</remarks>
    public SimulatedProcess Start(string vm, params IReadOnlyList<PciAddress> functions)
    {
        SimulatedProcess process;
        if (functions is [])
        {
            process = kernel.StartProcess("kvm", $"/qemu.slice/{vm}.scope");
        }
        else
        {
            vms[vm] = kernel.StartVm(vm, functions);
            process = vms[vm].Process;
        }
        process.CommandLine =
        [
            "/usr/bin/kvm", "-id", vm, "-name", $"vm{vm},debug-threads=on", "-no-shutdown",
            "-chardev", $"socket,id=qmp,path=/var/run/qemu-server/{vm}.qmp,server=on,wait=off",
            "-pidfile", $"/var/run/qemu-server/{vm}.pid", "-daemonize",
        ];
        qemus[vm] = process;
        kernel.Files.Write(PidFile(vm), $"{process.Pid}\n");
        return process;
    }

    /// <summary>QEMU ends, however that came about: its pidfile stays, as nobody of Proxmox's was there.</summary>
    public void Kill(string vm)
    {
        if (Qemu(vm) is { } process)
            kernel.EndProcess(process);
        qemus.Remove(vm);
        vms.Remove(vm);
    }

    /// <summary>QEMU has left /proc, and its devices are closed only so much later: the last close resets them.</summary>
    public void Kill(string vm, TimeSpan teardown)
    {
        if (vms.GetValueOrDefault(vm) is { } running && Qemu(vm) is not null)
            kernel.StopVm(running, teardown);
        else
            Kill(vm);
        qemus.Remove(vm);
        vms.Remove(vm);
    }

    /// <summary>Somebody asked for a reboot: the marker is there from before pre-stop until after post-stop.</summary>
    public void MarkReboot(string vm) => kernel.Files.Write(RebootMarker(vm), "");

    /// <summary>A line of the reservations, in the place of another for the same device.</summary>
    /// <param name="claim"><c>pid:4711</c> or <c>time:1765000000</c></param>
    public void Reserve(string id, string vm, string claim) =>
        Rewrite(lines => [.. lines.Where(line => line.Split(' ')[0] != id), $"{id} {vm} {claim}"]);

    /// <summary>Takes all of a VM's reservations away.</summary>
    public void Release(string vm) => Rewrite(lines => [.. lines.Where(line => line.Split(' ')[1] != vm)]);

    void Rewrite(Func<IReadOnlyList<string>, IReadOnlyList<string>> change)
    {
        var lines = (kernel.Files.Read(Reservations) ?? "").Split('\n', StringSplitOptions.RemoveEmptyEntries);
        kernel.Files.Write(Reservations, string.Concat(change(lines).Select(line => line + "\n")));
    }
}
