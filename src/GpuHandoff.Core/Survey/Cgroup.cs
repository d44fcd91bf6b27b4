using System.Globalization;
using GpuHandoff.Guests;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>Whom a process belongs to, by /proc/PID/cgroup (kernel/cgroup/cgroup.c:proc_cgroup_show).</summary>
/// <remarks>
/// A name counts only at a place that root alone can make: at the root of the tree, or below slices, which systemd never
/// delegates (systemd.resource-control(5), Delegate=: services and scopes only). What lies deeper belongs to the first that is
/// no slice, as systemd has it (cgroup-util.c:cg_path_get_unit): it may call its own groups what it likes, and so may any user
/// below user@UID.service.
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
    // 0::/user.slice/user-1000.slice/session-2.scope                               a login: no unit of the system's
    // 0::/user.slice/user-1000.slice/user@1000.service/lxc.payload.201             a user's own group, whatever its name
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
        // A name that might clash with the kernel's own files has a "_" before it (cgroup-util.c:cg_escape).
        string[] parts = [.. path.Split('/', StringSplitOptions.RemoveEmptyEntries).Select(p => p.StartsWith('_') ? p[1..] : p)];
        if (parts is ["user.slice", ..])
            return OfALogin(parts);
        var owner = 0;
        while (owner < parts.Length && parts[owner].EndsWith(".slice", StringComparison.Ordinal))
            owner++;
        if (owner == parts.Length)
            return null;
        var next = owner + 1 < parts.Length ? parts[owner + 1] : "";
        if (ContainerOf(parts.AsSpan(owner), atRoot: owner == 0) is { } container)
            return new(Container: container);
        return VmOf(parts.AsSpan(0, owner + 1), next) ?? (IsUnit(parts[owner]) ? new(Unit: parts[owner]) : null);
    }

    /// <summary>
    /// What people start in a login ends with a signal: systemctl does not know a user manager's units, and root's programs not
    /// a user's containers. What root's own login starts, they know.
    /// </summary>
    static Belonging? OfALogin(string[] parts)
    {
        if (parts is not [_, var slice, var login, ..])
            return null;
        var session = $"{slice}/{login}";
        if (After(slice, "user-") is { } rest && uint.TryParse(rest.Split('.')[0], NumberStyles.None, CultureInfo.InvariantCulture, out var user))
        {
            for (var i = 2; i < parts.Length; i++)
            {
                if (ContainerOf(parts.AsSpan(i), atRoot: true) is { } container)
                    return user == 0 ? new(Container: container) : new(Container: container) { Rootless = user, Session = session };
            }
        }
        return new() { Session = session };
    }

    static Container? ContainerOf(ReadOnlySpan<string> path, bool atRoot) => path switch
    {
        ["lxc" or "lxc.payload", not ("." or "..") and var name, ..] when atRoot => new(ContainerKind.Lxc, name),
        [var part, ..] when atRoot && After(part, "lxc.payload.") is { } name => new(ContainerKind.Lxc, name),
        ["docker", var id, ..] when atRoot && IsId(id) => new(ContainerKind.Docker, id[..ShownDigits]),
        // Podman with cgroupfs: a pod's containers lie one deeper.
        ["libpod_parent", var part, ..] when atRoot && Id(part, "libpod-") is { } id => new(ContainerKind.Podman, id),
        ["libpod_parent", _, var part, ..] when atRoot && Id(part, "libpod-") is { } id => new(ContainerKind.Podman, id),
        [var part, ..] when Id(part, "docker-") is { } id => new(ContainerKind.Docker, id),
        [var part, ..] when (Id(part, "libpod-payload-") ?? Id(part, "libpod-")) is { } id => new(ContainerKind.Podman, id),
        _ => null,
    };

    // The place: the slices above it, and its own name.
    static Belonging? VmOf(ReadOnlySpan<string> place, string next)
    {
        // Where libvirt finds no systemd-machined (util/vircgroup.c:virCgroupNewMachineManual): /machine/qemu-3-win11.libvirt-qemu
        if (place is ["machine"] && next.EndsWith(".libvirt-qemu", StringComparison.Ordinal))
            return Libvirts(next[..^".libvirt-qemu".Length], "qemu-");
        if (!place[^1].EndsWith(".scope", StringComparison.Ordinal))
            return null;
        var name = place[^1][..^".scope".Length];
        if (place is ["qemu.slice", _] && name.Length > 0)
            return new(Vm: name) { Manager = VmManager.Proxmox };
        // machine-qemu-3-win11: the number counts libvirt's starts. Its partition may be another slice than machine.slice.
        return place.Length > 1 ? Libvirts(name.Replace(@"\x2d", "-"), "machine-qemu-") : null;
    }

    static Belonging? Libvirts(string name, string prefix) =>
        After(name, prefix)?.Split('-', 2) is [_, { Length: > 0 } vm] ? new(Vm: vm) { Manager = VmManager.Libvirt } : null;

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
