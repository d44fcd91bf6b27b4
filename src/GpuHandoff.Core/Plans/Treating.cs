using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Steps;
using GpuHandoff.Survey;

namespace GpuHandoff.Plans;

/// <summary>Who a user of a card is: what is stopped in his place, what the policy says of him, and why nobody may stop him. Pure.</summary>
static class Treating
{
    // What others' work hangs on: these stay up, also where their own main process has a card. A job below one of them is a
    // process like any other: that is told by kind (Service.ShareOf), not by a list.
    static readonly string[] _neverStopped =
    [
        "pve-", "pvedaemon", "pveproxy", "qmeventd", "corosync", "ssh", "sshd", "cron", "dbus", "dbus-broker", "systemd-", "user@",
        "libvirtd", "virtqemud", "lxc", "docker", "containerd", "podman", "proxmox-",
    ];

    /// <summary>What the policy says of him; nobody who may not be stopped is, whatever it says.</summary>
    /// <param name="othersStay">Other GPUs stay on nvidia, maybe at work.</param>
    public static Treatment Of(GpuUser user, Machine machine, UsersPolicy policy, bool othersStay) => WhyNever(user, machine) is not null
        ? Treatment.Refuse
        : Way(user, machine, policy) switch
        {
            StopContainer stop => policy.OfContainer(stop.Container),
            StopUnit { Unit: HostUnits.DisplayManager } => policy.OfUnit(HostUnits.DisplayManager, policy.DisplayManager),
            StopUnit { Unit: NvidiaUnits.FabricManager } when othersStay => policy.OfUnit(NvidiaUnits.FabricManager, Treatment.Refuse),
            StopUnit stop => policy.OfUnit(stop.Unit, IsNvidias(user) ? policy.Nvidia : policy.Units),
            StopMps when !IsNvidias(user) && user.Of.Unit is { } unit => policy.OfUnit(unit, policy.Units),
            StopMps => policy.Nvidia,
            // A unit that the policy spares by name is spared with all that runs in it.
            _ when user.Of.Unit is { } unit && policy.Unit.GetValueOrDefault(unit, Treatment.Stop) == Treatment.Refuse => Treatment.Refuse,
            _ => policy.Processes == Treatment.Refuse ? Treatment.Refuse : Treatment.Stop,
        };

    /// <summary>By the unit first: MPS in a job (training.service) is that job's.</summary>
    public static bool IsNvidias(GpuUser user) => user.Of.Unit switch
    {
        null => IsMps(user),
        var unit => NvidiaUnits.Has(unit) || (IsMps(user) && IsOnlyItsStarter(unit)),
    };

    // In a unit that runs users' jobs (cron's) only root's MPS is what root has started there.
    static bool IsMps(GpuUser user) => user.IsMps() && (user.Uid == 0 || user.Of.Unit is not { } unit || !IsOthersWork(unit));

    /// <summary>What is stopped: the whole that he is a part of, where that can be started again.</summary>
    /// <param name="policy">Which units are meant by name; null: none.</param>
    public static Step Way(GpuUser user, Machine machine, UsersPolicy? policy = null) => user.Of switch
    {
        _ when user.Of.RootsContainer() is { } container => new StopContainer(container),
        _ when IsOfTheDisplay(user, machine) => new StopUnit(HostUnits.DisplayManager),
        _ when IsMps(user) && !HasUnit(user) && DaemonOf(user, machine) is { } daemon => new StopMps(daemon, Force: policy is { Processes: not Treatment.Refuse }),
        { Unit: { } unit } when (!IsMps(user) || HasUnit(unit)) && IsWhole(user, unit, machine, policy) => new StopUnit(unit),
        _ => new StopProcess(user.Pid, user.Started, user.Command),
    };

    /// <summary>
    /// Whether the unit is stopped for him: he is its main process or its work, or the policy means it by name. A scope cannot be
    /// started again: its processes are ended one by one.
    /// </summary>
    static bool IsWhole(GpuUser user, string unit, Machine machine, UsersPolicy? policy) => unit.EndsWith(".service", StringComparison.Ordinal)
        && (ShareOf(user, machine) is Share.Main or Share.Work || (IsNamed(unit, machine, policy) && EndsAll(unit, machine)));

    static bool IsNamed(string unit, Machine machine, UsersPolicy? policy) => policy?.Unit.ContainsKey(unit) == true
        && !IsOthersWork(unit) && unit != machine.OurOwn.Unit;

    static Service? ServiceOf(string unit, Machine machine) => machine.Services?.FirstOrDefault(s => s.Name == unit);

    /// <summary>Whether a stop of this unit ends all that runs in it; no where systemd does not tell.</summary>
    public static bool EndsAll(string unit, Machine machine) => ServiceOf(unit, machine)?.EndsAll() == true;

    /// <summary>Whether he goes on when his unit is stopped.</summary>
    public static bool OutlivesHisUnit(GpuUser user, Machine machine) => user.Of.Unit is { } unit && ServiceOf(unit, machine) is { } service
        && !service.EndsAll() && service.MainPid != user.Pid;

    /// <summary>What he is to the service that he belongs to.</summary>
    static Share ShareOf(GpuUser user, Machine machine) => user.Of.Unit switch
    {
        null => Share.Job,
        // They serve the cards, and run nothing for anybody.
        var unit when NvidiaUnits.Has(unit) => Share.Work,
        var unit => ServiceOf(unit, machine)?.ShareOf(user.Pid, user.Uid) ?? Share.Unknown,
    };

    /// <summary>Whether he belongs to a unit that starts him again when it is started; a script's unit does far more than that.</summary>
    public static bool HasUnit(GpuUser user) => user.Of.Unit is { } unit && HasUnit(unit);

    public static bool HasUnit(string unit) => unit.EndsWith(".service", StringComparison.Ordinal) && !IsOnlyItsStarter(unit);

    // By us, by a script at boot, by cron's @reboot: MPS is told to quit, and the unit goes on.
    static bool IsOnlyItsStarter(string unit) => unit.StartsWith(MpsDaemon.OurUnits, StringComparison.Ordinal)
        || unit is "rc-local.service" or "rc.local.service" || (unit.EndsWith(".service", StringComparison.Ordinal) && IsOthersWork(unit));

    static MpsDaemon? DaemonOf(GpuUser user, Machine machine) =>
        machine.Mps.FirstOrDefault(m => m.Servers.Contains(user.Pid))?.Daemon;

    /// <summary>
    /// Part of the graphical session that the display manager has opened: it goes with him. logind and PID 1 keep a card open for
    /// any session, so they count only where such a one is seen.
    /// </summary>
    public static bool IsOfTheDisplay(GpuUser user, Machine machine) => IsShown(user, machine)
        || (user.KeepsASession() && machine.Users.Any(u => IsShown(u, machine)));

    static bool IsShown(GpuUser user, Machine machine) => machine.DisplayManager is { } unit
        && (user.Of.Unit == unit || user.Of.Unit == HostUnits.DisplayManager || machine.IsGraphical(user.Of.Session));

    /// <summary>Why somebody is not stopped, whoever asks for it; null: may be.</summary>
    public static string? WhyNever(GpuUser user, Machine machine) => user switch
    {
        { Of.Vm: { } vm } => $"VM {vm} is shut down by its owner only",
        _ when machine.Ourselves.Contains(user.Pid) => "it waits for this very program",
        _ when user.Of.RootsContainer() is { } container => WhyNever(container, machine),
        _ when IsOfTheDisplay(user, machine) => machine.IsGraphical(machine.OurOwn.Session)
            ? RunsInTheSession
            : null,
        _ when user.KeepsASession() => "it lets go when the graphical session ends",
        _ => WhyNever(user, Way(user, machine), machine),
    };

    static string? WhyNever(GpuUser user, Step way, Machine machine) => way switch
    {
        StopUnit { Unit: var unit } => IsOthersWork(unit) ? OthersWork : unit == machine.OurOwn.Unit ? RunsInIt : null,
        // Of root's alone: a job that a user has in cron's is no reason not to be run by cron.
        StopProcess when user is { Of.Unit: { } unit, Uid: 0 } && unit == machine.OurOwn.Unit => RunsInIt,
        StopProcess when IsVm(user) => "a VM is shut down by its owner only",
        StopProcess when user.Of.Unit is { } unit && unit.EndsWith(".service", StringComparison.Ordinal) && ShareOf(user, machine) == Share.Unknown =>
            $"systemd does not tell whether it does {unit}'s own work or is a job below it (systemctl show {unit})",
        StopProcess { Started: 0 } => "its start time is not known, so that the PID could be another's",
        _ => null,
    };

    // A QEMU that no VM manager put into a scope is a VM all the same, where root runs it; libvirt without cgroups keeps its own there.
    static bool IsVm(GpuUser user) => user.IsRootsQemu()
        || (user.Of.Unit is "libvirtd.service" or "virtqemud.service" && ProgramFile.IsQemu(user.Exe));

    /// <summary>The same of a unit that goes with a target, whether it has a card open or not.</summary>
    public static string? WhyNever(string unit, Machine machine) => unit switch
    {
        _ when unit == machine.OurOwn.Unit => RunsInIt,
        _ when IsOthersWork(unit) => OthersWork,
        _ when unit == machine.DisplayManager && machine.IsGraphical(machine.OurOwn.Session) => RunsInTheSession,
        _ => null,
    };

    const string RunsInIt = "this very program runs in it";
    const string OthersWork = "others' work hangs on it";
    const string RunsInTheSession = "this very program runs in the graphical session: start it from a text console or by ssh";

    public static string? WhyNever(Container container, Machine machine) => container switch
    {
        _ when container == machine.OurOwn.Container => RunsInIt,
        { Kind: ContainerKind.Lxc, Id: var id } when !id.All(char.IsAsciiDigit) => "it is in a container that pct does not know",
        _ when !machine.Managers.Contains(container.Kind) => $"{Programs.Of(container.Kind)}, which would stop and start it, is not installed",
        _ => null,
    };

    static bool IsOthersWork(string unit) => _neverStopped.Any(name => unit == $"{name}.service"
        || (unit.StartsWith(name, StringComparison.Ordinal) && name[^1] is '-' or '@'));

    /// <summary>That for all of NVIDIA's daemons does not do where other GPUs stay.</summary>
    public const string FabricManagersWord = $"unit: {{{NvidiaUnits.FabricManager}: restart}}";

    /// <summary>The words of the policy file that let him be stopped: <c>unit: {ollama.service: restart}</c>.</summary>
    public static string Words(GpuUser user, Machine machine) => Way(user, machine) switch
    {
        StopContainer { Container: { Kind: ContainerKind.Lxc, Id: var id } } => $"container: {{\"{id}\": restart}}",
        StopContainer { Container: { Kind: var kind, Id: var id } } => $"container: {{\"{(kind == ContainerKind.Docker ? "docker" : "podman")}:{id}\": restart}}",
        StopUnit { Unit: HostUnits.DisplayManager } => "display-manager: restart",
        StopUnit { Unit: NvidiaUnits.FabricManager } => FabricManagersWord,
        StopUnit or StopMps when IsNvidias(user) => "nvidia: restart",
        StopUnit stop => $"unit: {{{stop.Unit}: restart}}",
        StopMps => $"unit: {{{user.Of.Unit}: restart}}",
        _ => "processes: stop",
    };
}
