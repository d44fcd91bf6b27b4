using System.Globalization;
using System.Text;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>
/// Leaves <c>reconcile --watch</c> behind with a VM that is about to start, outside of whatever starts it, with files of its
/// own: Proxmox waits until nobody has its hook's stdout and stderr open. It comes up while the hand-over goes on, and is
/// asked only at its end how that went.
/// </summary>
public sealed class Watchdog : IDisposable
{
    const string SystemdRun = "/usr/bin/systemd-run";

    // systemd answers in milliseconds; a busy one in a second.
    static readonly TimeSpan _answers = TimeSpan.FromSeconds(5);

    // exec: systemd counts it as started when the program is (systemd.service(5)), so that one which cannot be run is noticed.
    // process: a hand that hangs in the kernel cannot be killed, and its unit must not wait for it.
    static readonly (string Name, string Value)[] _properties = [("Type", "exec"), ("KillMode", "process")];

    readonly string _unit = "";
    readonly SystemdBus? _bus;
    readonly Spawned? _asks;
    string? _trouble;

    Watchdog(string unit, SystemdBus bus) => (_unit, _bus) = (unit, bus);

    Watchdog(Spawned asks) => _asks = asks;

    Watchdog(string trouble) => _trouble = trouble;

    /// <summary>
    /// Whether it must be seen to run by the end of the hand-over. A program takes longer to come up than a card to change hands,
    /// and whoever can look again later (<see cref="Missing(Guest)"/>) need not wait for that.
    /// </summary>
    bool IsSeenNowOrNever { get; init; }

    public static Watchdog Leave(Guest guest)
    {
        // What only looks for crashed VMs must not hinder one from starting.
        if (!Directory.Exists("/run/systemd/system"))
            return new("this host was not booted with systemd");
        if (Program("/proc/self/exe") is not { } program)
            return new("this program is no longer where it was started from");
        return Leave(
            UnitOf(guest, Environment.ProcessId), $"Watch over the GPUs that are lent to {guest}", [program, .. Arguments(guest)],
            SystemdBus.Default, isSeenNowOrNever: guest.Manager != VmManager.Proxmox);
    }

    // The socket is systemd's own; where it is not, systemd-run may know another way.
    public static Watchdog Leave(string unit, string description, IReadOnlyList<string> command, string socket, bool isSeenNowOrNever)
    {
        var bus = SystemdBus.To(socket);
        if (bus?.Start(unit, [("Description", description), ("CollectMode", "inactive-or-failed"), .. _properties], command) == true)
            return new(unit, bus) { IsSeenNowOrNever = isSeenNowOrNever };
        bus?.Dispose();
        if (!File.Exists(SystemdRun))
            return new($"there is no {SystemdRun}");
        try
        {
            string[] arguments =
            [
                "--quiet", "--collect", $"--unit={unit}", $"--description={description}",
                .. _properties.Select(p => $"--property={p.Name}={p.Value}"), "--", command[0], .. command.Skip(1).Select(SystemdBus.Literally),
            ];
            return new(Spawned.Start(SystemdRun, arguments, talks: false, complains: true));
        }
        catch (KernelRefused refused)
        {
            return new(refused.Message);
        }
    }

    public static IReadOnlyList<string> Arguments(Guest guest) => ["reconcile", $"--watch={guest.Spelt()}"];

    /// <summary>Where our program is; null: nowhere. An upgrade may have put another into its place meanwhile, which will do.</summary>
    public static string? Program(string link)
    {
        // fs/d_path.c:prepend_path
        const string deleted = " (deleted)";
        if (new LinuxKernel(hand: null).Link(new(link)) is not { } path)
            return null;
        if (path.EndsWith(deleted, StringComparison.Ordinal) && !File.Exists(path))
            path = path[..^deleted.Length];
        return File.Exists(path) ? path : null;
    }

    /// <summary>
    /// Each start has a watch of its own, which ends with its lease: one that stayed for the next start might be about to end
    /// in that moment.
    /// </summary>
    public static string UnitOf(Guest guest, int starter) => $"{UnitsOf(guest)}{starter}.service";

    /// <summary>How the names of all its watches' units begin. A VM of another manager may have the same name.</summary>
    static string UnitsOf(Guest guest)
    {
        var name = new StringBuilder("gpu-handoff-watch-");
        // systemd.unit(5): what a unit's name may have, and how the rest is written.
        foreach (var octet in Encoding.UTF8.GetBytes(guest.Spelt()))
        {
            if (char.IsAsciiLetterOrDigit((char)octet) || octet is (byte)':' or (byte)'_' or (byte)'.' or (byte)'-')
                name.Append((char)octet);
            else
                name.Append($"\\x{octet:x2}");
        }
        // A name has 255 bytes, and libvirt's may have as many.
        const int longest = 200;
        return $"{(name.Length > longest ? name.ToString(0, longest) : name.ToString())}-";
    }

    // "a-" is how the units of a VM "a-7" begin as well: what follows is a number alone.
    static bool IsOf(Guest guest, string unit) => UnitsOf(guest) is var begin && unit.StartsWith(begin, StringComparison.Ordinal)
        && unit.EndsWith(".service", StringComparison.Ordinal) && int.TryParse(unit.AsSpan()[begin.Length..^".service".Length], NumberStyles.None, CultureInfo.InvariantCulture, out _);

    /// <summary>Why nobody watches, with what comes instead; null: somebody does.</summary>
    public string? Trouble()
    {
        if (_trouble is null && _bus is { } bus)
            _trouble = bus.HowItStarts(_unit, IsSeenNowOrNever, _answers);
        else if (_trouble is null && _asks is { } asks)
        {
            _trouble = asks.Wait(_answers) switch
            {
                null => "systemd does not answer",
                0 => null,
                var exit => Said(asks) is { Length: > 0 } said ? said : $"systemd-run ended with exit code {exit}",
            };
        }
        return _trouble is null ? null : Nobody(_trouble);
    }

    /// <summary>Asked when the VM runs: why nobody watches over it; null: somebody does, or it cannot be told.</summary>
    public static string? Missing(Guest guest) => Missing(guest, "/sys/fs/cgroup/system.slice");

    // A service has a cgroup as long as it has a process (systemd, cgroup.c); on a host with the first kind of cgroups it is elsewhere.
    public static string? Missing(Guest guest, string slice) =>
        FolderNames.In(slice) is { } units && !units.Exists(u => IsOf(guest, u))
            ? Nobody($"there is no service {UnitsOf(guest)}*: journalctl -u '{UnitsOf(guest)}*' may tell why")
            : null;

    static string Nobody(string why) =>
        $"nobody watches over the VM: {why}; should it die without its post-stop, gpu-handoff-recover.timer brings the GPU home, or gpu-handoff reconcile by hand";

    static string Said(Spawned asks)
    {
        Span<byte> buffer = stackalloc byte[1024];
        var got = Libc.Read(asks.FromChild, buffer, buffer.Length);
        return got > 0 ? Encoding.UTF8.GetString(buffer[..(int)got]).Trim().ReplaceLineEndings("; ") : "";
    }

    public void Dispose()
    {
        _bus?.Dispose();
        _asks?.Dispose();
    }
}
