using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Steps;
using GpuHandoff.Survey;

namespace GpuHandoff.Plans;

/// <summary>Who a user of a card is: what is stopped in his place, what the policy says of him, and why nobody may stop him. Pure.</summary>
static class Treating
{
    // What others' work hangs on: a task of theirs that looked at the card for a moment is no reason to stop it.
    static readonly string[] _neverStopped =
    [
        "pve-", "pvedaemon", "pveproxy", "qmeventd", "corosync", "ssh", "sshd", "cron", "dbus", "dbus-broker", "systemd-", "user@",
        "libvirtd", "virtqemud", "lxc", "docker", "containerd", "podman", "proxmox-",
    ];

    /// <summary>What the policy says of him; nobody who may not be stopped is, whatever it says.</summary>
    /// <param name="othersStay">Other GPUs stay on nvidia, maybe at work.</param>
    public static Treatment Of(GpuUser user, Machine machine, UsersPolicy policy, bool othersStay) => WhyNever(user, machine) is not null
        ? Treatment.Refuse
        : Way(user, machine) switch
        {
            StopContainer stop => policy.OfContainer(stop.Container),
            StopUnit { Unit: HostUnits.DisplayManager } => policy.OfUnit(HostUnits.DisplayManager, policy.DisplayManager),
            StopUnit { Unit: NvidiaUnits.FabricManager } when othersStay => policy.OfUnit(NvidiaUnits.FabricManager, Treatment.Refuse),
            StopUnit stop => policy.OfUnit(stop.Unit, IsNvidias(user) ? policy.Nvidia : policy.Units),
            StopMps when !IsNvidias(user) && user.Of.Unit is { } unit => policy.OfUnit(unit, policy.Units),
            StopMps => policy.Nvidia,
            _ => policy.Processes == Treatment.Refuse ? Treatment.Refuse : Treatment.Stop,
        };

    /// <summary>
    /// By the unit first: MPS in somebody's job (slurmd.service, training.service) is that job's, and a process may call
    /// itself what it likes.
    /// </summary>
    public static bool IsNvidias(GpuUser user) => user.Of.Unit switch
    {
        null => user.IsMps(),
        var unit => NvidiaUnits.Has(unit) || (user.IsMps() && IsOnlyItsStarter(unit)),
    };

    /// <summary>What is stopped: the whole that he is a part of, where that can be started again.</summary>
    public static Step Way(GpuUser user, Machine machine, bool force = false) => user.Of switch
    {
        { Container: { } container } => new StopContainer(container),
        _ when IsOfTheDisplay(user, machine) => new StopUnit(HostUnits.DisplayManager),
        _ when user.IsMps() && !HasUnit(user) && DaemonOf(user, machine) is { } daemon => new StopMps(daemon, force),
        // A scope cannot be started again: its processes are ended one by one, as anybody's.
        { Unit: { } unit } when (user.IsMps() ? HasUnit(unit) : unit.EndsWith(".service", StringComparison.Ordinal)) => new StopUnit(unit),
        _ => new StopProcess(user.Pid, user.Started, user.Command),
    };

    /// <summary>Whether he belongs to a unit that starts him again when it is started; a script's unit does far more than that.</summary>
    public static bool HasUnit(GpuUser user) => user.Of.Unit is { } unit && HasUnit(unit);

    public static bool HasUnit(string unit) => unit.EndsWith(".service", StringComparison.Ordinal) && !IsOnlyItsStarter(unit);

    // By us, by a script at boot, by cron's @reboot: MPS is told to quit, and the unit goes on.
    static bool IsOnlyItsStarter(string unit) => unit.StartsWith(MpsDaemon.OurUnits, StringComparison.Ordinal)
        || unit is "rc-local.service" or "rc.local.service" || (unit.EndsWith(".service", StringComparison.Ordinal) && IsOthersWork(unit));

    static MpsDaemon? DaemonOf(GpuUser user, Machine machine) =>
        machine.Mps.FirstOrDefault(m => m.Servers.Contains(user.Pid))?.Daemon;

    /// <summary>Part of the graphical session that the display manager has opened: it goes with him.</summary>
    public static bool IsOfTheDisplay(GpuUser user, Machine machine) => machine.DisplayManager is { } unit
        && (user.KeepsASession() || user.Of.Unit == unit || user.Of.Unit == HostUnits.DisplayManager || IsGraphical(user.Of.Session, machine));

    /// <summary>
    /// A login counts as graphical where somebody in it has the screen's node; what runs below the user's own manager
    /// (GNOME's shell, a game) goes with that login. One by ssh stays.
    /// </summary>
    static bool IsGraphical(string? session, Machine machine) => session is not null && machine.Users.Any(u => u.HasAScreen() && u.Of.Session is { } other
        && (other == session || (session.Contains("/user@", StringComparison.Ordinal) && session.Split('/')[0] == other.Split('/')[0])));

    /// <summary>Why somebody is not stopped, whoever asks for it; null: may be.</summary>
    public static string? WhyNever(GpuUser user, Machine machine) => user switch
    {
        { Of.Vm: { } vm } => $"VM {vm} is shut down by its owner only",
        // A QEMU that nobody put into a scope of a VM manager's is a VM all the same.
        _ when user.Command is "kvm" || user.Command.StartsWith("qemu-system", StringComparison.Ordinal) => "a VM is shut down by its owner only",
        _ when machine.Ourselves.Contains(user.Pid) => "it waits for this very program",
        _ when IsOfTheDisplay(user, machine) => IsGraphical(machine.OurOwn.Session, machine)
            ? RunsInTheSession
            : null,
        _ when user.KeepsASession() => "it lets go when the graphical session ends",
        { Of: { Container: null, Unit: { } unit } } when IsOthersWork(unit) && !user.IsMps() => OthersWork,
        { Of: { Container: null, Unit: { } unit } } when unit == machine.OurOwn.Unit => RunsInIt,
        { Of: { Container.Kind: var kind, Rootless: { } keeper } } =>
            $"it is user {keeper}'s own {(kind == ContainerKind.Docker ? "Docker" : "Podman")} container, which only that user can stop",
        { Of.Container: { } container } => WhyNever(container, machine),
        { Started: 0 } when Way(user, machine) is StopProcess => "its start time is not known, so that the PID could be another's",
        _ => null,
    };

    /// <summary>The same of a unit that goes with a target, whether it has a card open or not.</summary>
    public static string? WhyNever(string unit, Machine machine) => unit switch
    {
        _ when unit == machine.OurOwn.Unit => RunsInIt,
        _ when IsOthersWork(unit) => OthersWork,
        _ when unit == machine.DisplayManager && IsGraphical(machine.OurOwn.Session, machine) => RunsInTheSession,
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
