using System.Collections.Immutable;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>
/// A process of an ordinary user, or of one container, that passes itself off as another's: by its name, its program, its
/// command line, or the cgroups that its user may make.
/// </summary>
/// <param name="As">What it passes for.</param>
/// <param name="Cgroup">After <c>0::</c>.</param>
sealed record Impostor(string As, string Command, string Cgroup)
{
    /// <summary>An ordinary user, logged in by ssh: bob.</summary>
    public const uint Bob = 1001;

    const string Login = "/user.slice/user-1001.slice/session-9.scope";
    const string Manager = "/user.slice/user-1001.slice/user@1001.service";
    const string Inside = "/lxc/201/ns";
    static readonly string _id = string.Concat(Enumerable.Repeat("0123456789abcdef", 4));

    /// <summary>Null: some program of his own.</summary>
    string? Exe { get; init; }

    /// <summary>All that an unprivileged process may choose for itself.</summary>
    public static ImmutableArray<Impostor> All { get; } =
    [
        new("root's container 201", "init", $"{Manager}/lxc.payload.201"),
        new("root's container 201, from a login", "init", $"{Login}/lxc.payload.201"),
        new("root's container 202, by Proxmox's path", "init", $"{Manager}/lxc/202/ns/init.scope"),
        new("a Docker container", "python3", $"{Manager}/system.slice/docker-{_id}.scope"),
        new("a Podman container", "python3", $"{Manager}/machine.slice/libpod-{_id}.scope/container"),
        new("a VM of Proxmox's by its cgroup", "kvm", $"{Manager}/qemu.slice/101.scope") { Exe = "/usr/bin/qemu-system-x86_64" },
        new("a domain of libvirt's by its cgroup", "qemu-system-x86", $@"{Manager}/machine.slice/machine-qemu\x2d1\x2d101.scope") { Exe = "/usr/bin/qemu-system-x86_64" },
        new("a domain of libvirt's without systemd", "qemu-system-x86", $"{Manager}/machine/qemu-1-101.libvirt-qemu/emulator") { Exe = "/usr/bin/qemu-system-x86_64" },
        new("a VM by name", "kvm", Login),
        new("a VM by program", "kvm", Login) { Exe = "/usr/bin/qemu-system-x86_64" },
        new("QEMU by another name", "qemu-system-x86", Login) { Exe = "/home/bob/qemu-system-x86_64" },
        new("ollama's unit", "ollama", $"{Manager}/system.slice/ollama.service"),
        new("the display manager's unit", "gdm", $"{Manager}/system.slice/gdm.service"),
        new("logind", "systemd-logind", $"{Manager}/system.slice/systemd-logind.service"),
        new("X by name", "Xorg", Login),
        new("X by program", "Xorg", Login) { Exe = "/usr/lib/xorg/Xorg" },
        new("X below the user's own manager", "Xwayland", $"{Manager}/session.slice/x.service") { Exe = "/usr/bin/Xwayland" },
        new("a server of MPS by name", "nvidia-cuda-mps", Login),
        new("a server of MPS by program", "nvidia-cuda-mps", Login) { Exe = "/usr/bin/nvidia-cuda-mps-server" },
        new("MPS's daemon", "nvidia-cuda-mps", Login) { Exe = "/usr/bin/nvidia-cuda-mps-control" },
        new("nvidia-persistenced", "nvidia-persiste", $"{Manager}/system.slice/nvidia-persistenced.service"),
        new("gpu-handoff itself", "gpu-handoff", Login),
        new("a VM, as a job of at's", "kvm", "/system.slice/atd.service") { Exe = "/usr/bin/qemu-system-x86_64" },
        new("atd's own work", "atd", "/system.slice/atd.service") { Exe = "/usr/sbin/atd" },
        new("MPS, as a job of cron's", "nvidia-cuda-mps", "/system.slice/cron.service") { Exe = "/usr/bin/nvidia-cuda-mps-server" },
        new("MPS, as a job of at's", "nvidia-cuda-mps", "/system.slice/atd.service"),
        new("root's container, as a job of cron's", "init", "/system.slice/cron.service/lxc.payload.201"),
        new("a VM, from within a container", "kvm", $"{Inside}/init.scope") { Exe = "/usr/bin/qemu-system-x86_64" },
        new("a VM by its cgroup, from within a container", "kvm", $"{Inside}/qemu.slice/101.scope"),
        new("another container, from within a container", "init", $"{Inside}/lxc.payload.202"),
        new("a Docker container, from within a container", "init", $"{Inside}/system.slice/docker-{_id}.scope"),
        new("a unit, from within a container", "ollama", $"{Inside}/system.slice/ollama.service"),
        new("MPS, from within a container", "nvidia-cuda-mps", $"{Inside}/init.scope") { Exe = "/usr/bin/nvidia-cuda-mps-server" },
        new("X, from within a container", "Xorg", $"{Inside}/user.slice/user-1000.slice/session-2.scope") { Exe = "/usr/lib/xorg/Xorg" },
    ];

    public static Impostor Of(string name) => All.First(i => i.As == name);

    public bool IsInside() => Cgroup.StartsWith(Inside, StringComparison.Ordinal);

    /// <summary>The same user's process, or the same container's, that passes for nothing.</summary>
    public Impostor Plain() => new("nothing", "python3", IsInside() ? $"{Inside}/init.scope" : Login);

    /// <summary>What all of them need on a host: the real ones, the login, and what runs jobs.</summary>
    public static void Ground(SimulatedKernel kernel)
    {
        kernel.Login("9", Bob, "sshd", type: "x11");
        foreach (var unit in (string[])["atd.service", "cron.service"])
            kernel.StartUnit(kernel.AddUnit(unit, unit[..unit.IndexOf('.')]));
        if (!kernel.Exists(new("/sys/fs/cgroup/lxc/201")))
        {
            foreach (var id in (string[])["201", "202"])
                kernel.StartContainer(kernel.AddContainer(ContainerKind.Lxc, id, "nginx"));
        }
        kernel.StartContainer(kernel.AddContainer(ContainerKind.Docker, _id, "nginx"));
        kernel.StartContainer(kernel.AddContainer(ContainerKind.Podman, _id, "nginx"));
    }

    /// <summary>It comes, with those of the nodes open that are there.</summary>
    public SimulatedProcess Start(SimulatedKernel kernel, int? pid = null, params IReadOnlyList<string> nodes)
    {
        var process = Disguise(kernel.StartProcess(Command, Cgroup, pid));
        foreach (var node in nodes)
        {
            try
            {
                kernel.OpenNode(node, process);
            }
            catch (KernelRefused)
            {
                // No such node on this host.
            }
        }
        return process;
    }

    /// <summary>It has the IOMMU group of these functions open, because an admin gave the node away.</summary>
    public SimulatedProcess StartWithGroup(SimulatedKernel kernel, params IReadOnlyList<PciAddress> functions) =>
        Disguise(kernel.StartVm("impostor", functions, Cgroup).Process);

    SimulatedProcess Disguise(SimulatedProcess process)
    {
        process.User = IsInside() ? 100000 : Bob;
        process.Exe = Exe ?? $"/home/bob/{Command}";
        process.CommandLine = [Command, "-id", "101", "-pidfile", "/var/run/qemu-server/101.pid", "-name", "guest=101"];
        if (IsInside())
            (process.PidNamespace, process.MountNamespace) = ("pid:[4026532999]", "mnt:[4026532998]");
        return process;
    }

    public override string ToString() => As;
}
