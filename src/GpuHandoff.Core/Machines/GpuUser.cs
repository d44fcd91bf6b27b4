using System.Text.Json.Serialization;

namespace GpuHandoff.Machines;

/// <summary>A process that has a node of a GPU open, found by the device number: a container's copy of the node counts.</summary>
/// <param name="Path">The node as the process sees it.</param>
public sealed record GpuUser(int Pid, string Command, string Path, DeviceNode Node)
{
    public Belonging Of { get; init; } = new();

    /// <summary>When the process began, in clock ticks since boot: a PID alone may be somebody else's by now.</summary>
    /// <remarks>fs/proc/array.c:do_task_stat, field 22.</remarks>
    public ulong Started { get; init; }

    /// <summary>Its program's file as the kernel has it (/proc/PID/exe), which no process can name; null where it is not to be had.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Exe { get; init; }

    /// <summary>The account that it runs as (the real user ID on the host), by number; null where its status is not to be had.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public uint? Uid { get; init; }

    /// <summary>What an interpreter runs: <c>python3</c> alone says little.</summary>
    public string? Script { get; init; }

    /// <summary>Its descriptor is closed and its mapping is left: that holds the device just as well.</summary>
    public bool Mapped { get; init; }

    /// <summary>It lives in another PID namespace: in a container, whosever that is.</summary>
    public bool Apart { get; init; }

    /// <summary>
    /// QEMU by its program, run by root: a VM, also where no VM manager put it into a scope. A user's QEMU is that user's
    /// process, and a name (comm) is anybody's choice.
    /// </summary>
    public bool IsRootsQemu() => Uid == 0 && ProgramFile.IsQemu(Exe);

    /// <summary>logind keeps a session's DRM nodes open, and leaves copies of them with PID 1 (logind-session-device.c).</summary>
    public bool KeepsASession() => Pid == 1 || Of.Unit == "systemd-logind.service";

    /// <summary>It has the node that shows pictures (DRM's primary one, below 64), or is a display server by its program.</summary>
    /// <remarks>nvidia-drm without modeset has no such node in use: X then has the card's own.</remarks>
    public bool HasAScreen() => Node is { Major: 226, Minor: < 64 } || ProgramFile.NameOf(Exe) is "Xorg" or "X" or "Xwayland";

    /// <summary>CUDA MPS: its server or its control daemon, by <see cref="MpsDaemon.IsPart"/>.</summary>
    public bool IsMps() => MpsDaemon.IsPart(Exe, Uid, Of);

    public override string ToString() =>
        $"{Pid} {Command}{(Script is null ? "" : $" {Script}")} ({Path}{(Mapped ? ", mapped" : "")}){Whose()}";

    string Whose() => this switch
    {
        { Of.Vm: { } vm } => $" VM {vm}",
        { Of: { Container: { } container, Rootless: { } keeper } } => $" in user {Of.User ?? $"{keeper}"}'s own {container}",
        { Of.Container: { } container } => $" in {container}",
        { Of.Unit: null, Apart: true } => " in a container (other namespaces)",
        { Of: { User: { } user, Unit: { } unit } } => $" user {user}, {unit}",
        { Of.User: { } user } => $" user {user}",
        { Of.Unit: { } unit } => $" {unit}",
        _ => "",
    };
}
