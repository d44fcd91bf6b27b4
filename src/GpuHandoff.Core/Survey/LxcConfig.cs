using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>The devices that a container's config gives it (pve-container, PVE/LXC/Config.pm; lxc.container.conf(5)).</summary>
public static class LxcConfig
{
    // A healthy pmxcfs answers in microseconds; one without its cluster may hang.
    static readonly TimeSpan _slowRead = TimeSpan.FromSeconds(5);

    /// <summary>Those that run. Which these are the kernel tells (PVE/LXC.pm: lxc.cgroup.dir.container), without any program.</summary>
    /// <remarks>
    /// The configs lie in pmxcfs, a process's file system (FUSE): it may hang, or have died (ENOTCONN), and no card is at
    /// fault. One that keeps silent is not asked again, each question would cost the same time.
    /// </remarks>
    public static ImmutableArray<RunningContainer> Running(IKernel kernel)
    {
        var containers = ImmutableArray.CreateBuilder<RunningContainer>();
        var answers = true;
        foreach (var id in kernel.List(new("/sys/fs/cgroup/lxc")).Where(id => id.All(char.IsAsciiDigit)))
        {
            var container = new Container(ContainerKind.Lxc, id);
            var running = new RunningContainer(container, [], []) { IsKnown = false };
            try
            {
                if (answers)
                    running = Parse(container, kernel.ReadSlow(new($"/etc/pve/lxc/{id}.conf"), _slowRead) ?? "");
            }
            catch (KernelSilent)
            {
                answers = false;
            }
            catch (KernelRefused)
            {
                // It stays one that nobody knows.
            }
            containers.Add(running);
        }
        return containers.ToImmutable();
    }

    // arch: amd64
    // dev0: /dev/nvidia0,mode=0666                                                 also dev0: path=/dev/nvidia0
    // lxc.mount.entry: /dev/nvidia0 dev/nvidia0 none bind,optional,create=file     raw lines take ":" or "="
    // lxc.mount.entry: /dev/dri dev/dri none bind,optional,create=dir
    // lxc.cgroup2.devices.allow: c 195:* rwm                                       lxc.cgroup.… on old hosts; c, 195:0, *:*
    // #lxc.cgroup2.devices.allow: c 1:1 rwm                                        a comment, and the notes of the web page
    // [snapshot]                                                                   what was, not what is
    public static RunningContainer Parse(Container container, string text)
    {
        var nodes = ImmutableArray.CreateBuilder<string>();
        var rules = ImmutableArray.CreateBuilder<DeviceRule>();
        foreach (var line in text.Split('\n').Select(l => l.Trim()))
        {
            if (line.StartsWith('['))
                break;
            if (line.StartsWith('#') || line.IndexOfAny([':', '=']) is not (> 0 and var end))
                continue;
            var (key, value) = (line[..end].TrimEnd(), line[(end + 1)..].Trim());
            if (IsDevice(key))
                AddNode(value.Split(',').Select(part => part.Split('=', 2) is ["path", var path] ? path : part).First());
            else if (key == "lxc.mount.entry")
                AddNode(value.Split([' ', '\t'], 2)[0]);
            else if (key is "lxc.cgroup2.devices.allow" or "lxc.cgroup.devices.allow" && RuleOf(value) is { } rule)
                rules.Add(rule);
        }
        return new(container, nodes.ToImmutable(), rules.ToImmutable());

        void AddNode(string path)
        {
            path = path.TrimEnd('/');
            if (path.StartsWith("/dev/", StringComparison.Ordinal))
                nodes.Add(path);
        }
    }

    static bool IsDevice(string key) => key.Length > 3 && key.StartsWith("dev", StringComparison.Ordinal) && key[3..].All(char.IsAsciiDigit);

    // c 195:* rwm          a rule for everything names no card
    static DeviceRule? RuleOf(string value)
    {
        if (value.Split([' ', '\t'], StringSplitOptions.RemoveEmptyEntries) is not ["c", var numbers, ..]
            || numbers.Split(':') is not [var major, var minor]
            || !uint.TryParse(major, NumberStyles.None, CultureInfo.InvariantCulture, out var number))
        {
            return null;
        }
        if (minor == "*")
            return new(number, null);
        return uint.TryParse(minor, NumberStyles.None, CultureInfo.InvariantCulture, out var one) ? new(number, one) : null;
    }
}
