using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Steps;

namespace GpuHandoff.Plans;

/// <summary>
/// Who is made to let go of the cards, and how: a unit or a container as a whole, whichever number of its processes have
/// the card, and a process where there is nothing to stop in its place. Pure.
/// </summary>
/// <param name="Users">Those that will have let go.</param>
/// <param name="Steps">One for each unit, container and process; what cannot be started again comes last.</param>
/// <param name="Persistent">Cards whose persistence mode is switched off.</param>
sealed record Stopping(ImmutableArray<GpuUser> Users, ImmutableArray<Step> Steps, ImmutableArray<PciAddress> Persistent)
{
    public const string Persistenced = "nvidia-persistenced.service";

    static readonly Stopping _nobody = new([], [], []);

    // What others' work hangs on: a task of theirs that looked at the card for a moment is no reason to stop it.
    static readonly string[] _neverStopped =
    [
        "pve-", "pvedaemon", "pveproxy", "qmeventd", "corosync", "ssh", "sshd", "cron", "dbus", "dbus-broker", "systemd-", "user@",
        "libvirtd", "virtqemud", "lxc", "docker", "containerd", "podman", "proxmox-",
    ];

    /// <summary>Nobody, where the policy does not ask for it.</summary>
    /// <param name="gpus">Those that are not yet where they shall be.</param>
    public static Stopping For(Machine machine, Goal goal, ImmutableArray<Gpu> gpus, Policy policy, FreeBy way)
    {
        if (goal.Target != Target.Vfio)
            return _nobody;
        // An unload ends persistence mode by itself; switched off before, it can be switched on again by whoever undoes it.
        var persistent = gpus.Where(g => g.Persistence == true && (policy.StopUsers || way == FreeBy.Unload)).Select(g => g.Address).ToImmutableArray();
        var users = policy.StopUsers
            ? Holders(machine, gpus, policy, way).Where(u => WhyNever(u, machine) is null).ToImmutableArray()
            : [];
        var stops = users.Select(Stop).Distinct().OrderBy(Order).ToList();
        return new(users, [.. stops, .. persistent.Select(f => new SwitchPersistence(f, On: false))], persistent);
    }

    /// <summary>Those in the way: the stack's users where it is unloaded, else those of the cards themselves.</summary>
    static IEnumerable<GpuUser> Holders(Machine machine, ImmutableArray<Gpu> gpus, Policy policy, FreeBy way)
    {
        var nodes = gpus.SelectMany(g => Planner.Leaving(g, policy)).Where(f => !f.IsOnVfio()).SelectMany(f => f.Nodes).ToList();
        var onNvidia = gpus.Where(g => g.Display().Owner.Driver == "nvidia").ToList();
        if (onNvidia is not [] && way == FreeBy.Unload)
        {
            nodes.AddRange(machine.Nodes);
            nodes.AddRange(machine.Functions().Where(f => f.Owner.Driver == "nvidia").SelectMany(f => f.Nodes));
        }
        else
        {
            nodes.AddRange(machine.Nodes.Where(n => onNvidia.Exists(g => n.Path == $"/dev/nvidia{g.Minor}")));
        }
        return machine.Users.Where(u => nodes.Exists(n => n.Node.IsSameDevice(u.Node)));
    }

    /// <summary>Why somebody is not stopped, whoever asks for it; null: may be.</summary>
    public static string? WhyNever(GpuUser user, Machine machine) => user switch
    {
        { Of.Vm: { } vm } => $"VM {vm} is shut down by its owner only",
        // A QEMU that nobody put into a scope of a VM manager's is a VM all the same.
        _ when user.Command is "kvm" || user.Command.StartsWith("qemu-system", StringComparison.Ordinal) => "a VM is shut down by its owner only",
        _ when user.KeepsASession() => "it lets go when the graphical session ends",
        _ when machine.Ourselves.Contains(user.Pid) => "it waits for this very program",
        { Of: { Container: null, Unit: { } unit } } when _neverStopped.Any(name => unit == $"{name}.service"
            || (unit.StartsWith(name, StringComparison.Ordinal) && name[^1] is '-' or '@')) => "others' work hangs on it",
        { Of.Unit: { } unit } when unit == machine.OurOwn.Unit => "this very program runs in it",
        { Of.Container: { } container } when container == machine.OurOwn.Container => "this very program runs in it",
        { Of.Container: { Kind: ContainerKind.Lxc, Id: var id } } when !id.All(char.IsAsciiDigit) => "it is in a container that pct does not know",
        { Started: 0 } when Stop(user) is StopProcess => "its start time is not known, so that the PID could be another's",
        _ => null,
    };

    // A scope cannot be started again: its processes are ended one by one, as anybody's.
    static Step Stop(GpuUser user) => user.Of switch
    {
        { Container: { } container } => new StopContainer(container),
        { Unit: { } unit } when unit.EndsWith(".service", StringComparison.Ordinal) => new StopUnit(unit),
        _ => new StopProcess(user.Pid, user.Started, user.Command),
    };

    // The daemon that keeps cards initialised goes after its clients; a process that nobody can start again goes last of
    // all, when all the others have been seen to stop.
    static int Order(Step step) => step switch
    {
        StopContainer => 0,
        StopUnit { Unit: not Persistenced } => 1,
        StopUnit => 2,
        _ => 3,
    };

    public bool Is(string unit) => Steps.Contains(new StopUnit(unit));

    /// <summary>What the return has to start again for a card.</summary>
    public IEnumerable<Stopped> Remembered(Gpu gpu) => Steps.Select(step => step switch
    {
        StopUnit unit => new Stopped(Unit: unit.Unit),
        StopContainer container => new Stopped(Container: container.Container),
        SwitchPersistence persistence when persistence.Function == gpu.Address => new Stopped(Persistence: persistence.Function),
        _ => null,
    }).OfType<Stopped>();

    /// <summary>
    /// The machine as it is with them gone: for the checks, which then find who is left. A module counts as free where a
    /// user of it goes and no visible one stays; whether that is so, the steps have to prove.
    /// </summary>
    public Machine Then(Machine machine)
    {
        if (Steps is [])
            return machine;
        var left = machine.Users.Except(Users).ToImmutableArray();
        var freed = Users.Select(u => ModuleOf(u, machine)).Except(left.Select(u => ModuleOf(u, machine))).OfType<string>().ToImmutableArray();
        return machine with
        {
            Users = left,
            Modules = [.. machine.Modules.Select(m => freed.Contains(m.Name) && m.RefCount is not null ? m with { RefCount = m.Holders.Length } : m)],
            Gpus = [.. machine.Gpus.Select(g => Then(g, machine, left))],
        };
    }

    Gpu Then(Gpu gpu, Machine machine, ImmutableArray<GpuUser> left)
    {
        bool Has(GpuUser user) => machine.Nodes.Where(n => n.Path == $"/dev/nvidia{gpu.Minor}")
            .Concat(gpu.Functions.SelectMany(f => f.Nodes)).Any(n => n.Node.IsSameDevice(user.Node));

        return !Persistent.Contains(gpu.Address) && (!Users.Any(Has) || left.Any(Has))
            ? gpu
            : gpu with { Functions = [.. gpu.Functions.Select(f => f.Address == gpu.Address ? f with { Interrupts = 0 } : f)] };
    }

    /// <summary>The modules whose counts must be free before the stack is unloaded.</summary>
    /// <remarks>With modeset=1 nvidia_drm itself counts on the modules below it.</remarks>
    public static ImmutableArray<string> MustBeFree(Machine machine) =>
    [
        .. NvidiaStack.Loaded(machine).Select(m => m.Name)
            .Where(name => name is not ("nvidia" or "nvidia_modeset") || !NvidiaStack.DrmHoldsModules(machine)),
    ];

    public string? Note() => Steps.OfType<StopProcess>().ToList() is not [] and var ended
        ? $"ended and not started again: {string.Join(", ", ended.Select(p => $"{p.Pid.ToString(CultureInfo.InvariantCulture)} ({p.Command})"))}"
        : null;

    // Null: none of the stack's, such as a jack of the sound card.
    static string? ModuleOf(GpuUser user, Machine machine) => user.Node switch
    {
        { Major: Drm or FrameBuffer } => "nvidia_drm",
        { Major: Nvidia, Minor: Modeset } => "nvidia_modeset",
        { Major: Nvidia or I2c } => "nvidia",
        // The others have another major after each load.
        var node => machine.Nodes.FirstOrDefault(n => n.Node.IsSameDevice(node))?.Path is not { } path ? null
            : path.StartsWith("/dev/nvidia-uvm", StringComparison.Ordinal) ? "nvidia_uvm" : "nvidia",
    };

    // include/uapi/linux/major.h, drm.h, and nvidia's own nv-chardev-numbers.h.
    const uint FrameBuffer = 29;
    const uint I2c = 89;
    const uint Nvidia = 195;
    const uint Drm = 226;
    const uint Modeset = 254;
}
