using System.Globalization;
using GpuHandoff.Guests;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>Whom a process belongs to, by /proc/PID/cgroup (kernel/cgroup/cgroup.c:proc_cgroup_show).</summary>
/// <remarks>
/// The outermost name counts: what runs inside a container can only be stopped from the host with the container, and
/// systemd, too, takes the first unit of the path (systemd, cgroup-util.c:cg_path_get_unit).
/// </remarks>
public static class Cgroup
{
    const int ShownDigits = 12;

    // 0::/system.slice/ollama.service                                              cgroup v2
    // 1:name=systemd:/system.slice/ollama.service                                  v1, next to 12:devices:/… and the like
    // 0::/lxc/107/ns/system.slice/jupyter.service                                  Proxmox's LXC; plain LXC: /lxc.payload.NAME
    // 0::/qemu.slice/101.scope                                                     Proxmox's QEMU
    // 0::/machine.slice/machine-qemu\x2d3\x2dwin11.scope/libvirt/emulator          libvirt's QEMU
    // 0::/system.slice/docker-<64 hex digits>.scope                                also /docker/<64 hex digits>
    // 0::/machine.slice/libpod-<64 hex digits>.scope/container                     Podman
    // 0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<64 hex digits>.scope   a user's own, rootless
    // 0::/user.slice/user-1000.slice/session-2.scope                               a login: nobody's unit
    public static Belonging Parse(string text)
    {
        var found = new Belonging();
        var best = int.MaxValue;
        foreach (var line in text.Split('\n'))
        {
            if (line.Split(':', 3) is not [_, var controllers, var path])
                continue;
            // v2 has the whole truth; where it is only half in use (hybrid), systemd's own hierarchy has it.
            var rank = controllers switch { "" => 0, "name=systemd" => 1, _ => 2 };
            if (rank < best && Of(path) is { } belonging)
                (found, best) = (belonging, rank);
        }
        return found;
    }

    static Belonging? Of(string path)
    {
        if (path.EndsWith(" (deleted)", StringComparison.Ordinal))
            path = path[..path.LastIndexOf(' ')];
        var parts = path.Split('/', StringSplitOptions.RemoveEmptyEntries);
        // What people start in a login ends with a signal: systemctl does not know a user manager's units, either.
        var login = parts is ["user.slice", ..] or ["init.scope", ..];
        for (var i = 0; i < parts.Length; i++)
        {
            // A name that might clash with the kernel's own files has a "_" before it (cgroup-util.c:cg_escape).
            var part = parts[i].StartsWith('_') ? parts[i][1..] : parts[i];
            if (ContainerOf(part, i + 1 < parts.Length ? parts[i + 1] : "", i == 0) is { } container)
                return new(Container: container) { Rootless = container.Kind == ContainerKind.Lxc ? null : KeeperOf(parts) };
            if (VmOf(part, i > 0 ? parts[i - 1] : "") is { } vm)
                return vm;
            if (!login && IsUnit(part))
                return new(Unit: part);
        }
        return parts is ["user.slice", var user, var session, ..] ? new() { Session = $"{user}/{session}" } : null;
    }

    // user-1000.slice. What root's own login starts, root's programs know.
    static uint? KeeperOf(string[] parts) => parts is ["user.slice", var slice, ..] && After(slice, "user-") is { } rest
        && uint.TryParse(rest.Split('.')[0], NumberStyles.None, CultureInfo.InvariantCulture, out var user) && user != 0 ? user : null;

    static Container? ContainerOf(string part, string next, bool first) => part switch
    {
        "lxc" or "lxc.payload" when (first || part != "lxc") && next is not ("" or "." or "..") => new(ContainerKind.Lxc, next),
        "docker" when first && IsId(next) => new(ContainerKind.Docker, next[..ShownDigits]),
        _ when After(part, "lxc.payload.") is { } name => new(ContainerKind.Lxc, name),
        _ when Id(part, "docker-") is { } id => new(ContainerKind.Docker, id),
        _ when (Id(part, "libpod-payload-") ?? Id(part, "libpod-")) is { } id => new(ContainerKind.Podman, id),
        _ => null,
    };

    static Belonging? VmOf(string part, string before)
    {
        if (!part.EndsWith(".scope", StringComparison.Ordinal))
            return null;
        var name = part[..^".scope".Length];
        if (before == "qemu.slice" && name.Length > 0)
            return new(Vm: name) { Manager = VmManager.Proxmox };
        // machine-qemu-3-win11: the number counts libvirt's starts.
        return After(name.Replace(@"\x2d", "-"), "machine-qemu-")?.Split('-', 2) is [_, { Length: > 0 } vm] ? new(Vm: vm) { Manager = VmManager.Libvirt } : null;
    }

    static bool IsUnit(string part) =>
        (part.EndsWith(".service", StringComparison.Ordinal) || part.EndsWith(".scope", StringComparison.Ordinal))
        && part.IndexOf('.') > 0
        && part != "init.scope"
        && !part.StartsWith("session-", StringComparison.Ordinal)
        && !part.StartsWith("user@", StringComparison.Ordinal);

    static string? Id(string part, string prefix) =>
        After(part, prefix) is { } rest && rest.Split('.')[0] is var id && IsId(id) ? id[..ShownDigits] : null;

    static string? After(string text, string prefix) =>
        text.Length > prefix.Length && text.StartsWith(prefix, StringComparison.Ordinal) ? text[prefix.Length..] : null;

    static bool IsId(string text) => text.Length == 64 && text.All(char.IsAsciiHexDigit);
}
