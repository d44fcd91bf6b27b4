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

    readonly Spawned? _asks;
    string? _trouble;

    Watchdog(Spawned? asks, string? trouble) => (_asks, _trouble) = (asks, trouble);

    public static Watchdog Leave(Guest guest)
    {
        // What only looks for crashed VMs must not hinder one from starting.
        if (!Directory.Exists("/run/systemd/system"))
            return new(null, "this host was not booted with systemd");
        if (!File.Exists(SystemdRun))
            return new(null, $"there is no {SystemdRun}");
        try
        {
            return new(Spawned.Start(SystemdRun, Arguments(guest), talks: false, complains: true), null);
        }
        catch (KernelRefused refused)
        {
            return new(null, refused.Message);
        }
    }

    static IReadOnlyList<string> Arguments(Guest guest) =>
    [
        "--quiet", "--collect", "--no-block", $"--unit={UnitOf(guest, Environment.ProcessId)}",
        $"--description=Watch over the GPUs that are lent to {guest}",
        // A hand that hangs in the kernel cannot be killed, and its unit must not wait for it.
        "--property=KillMode=process",
        "--", Environment.ProcessPath ?? "/proc/self/exe", "reconcile", $"--watch={guest.Spelt()}",
    ];

    /// <summary>
    /// Each start has a watch of its own, which ends with its lease: one that stayed for the next start might be about to end
    /// in that moment.
    /// </summary>
    public static string UnitOf(Guest guest, int starter)
    {
        var name = new StringBuilder("gpu-handoff-watch-");
        // systemd.unit(5): what a unit's name may have, and how the rest is written.
        foreach (var octet in Encoding.UTF8.GetBytes(guest.Id))
        {
            if (char.IsAsciiLetterOrDigit((char)octet) || octet is (byte)'_' or (byte)'.' or (byte)'-')
                name.Append((char)octet);
            else
                name.Append($"\\x{octet:x2}");
        }
        // A name has 255 bytes, and libvirt's may have as many.
        const int longest = 200;
        return $"{(name.Length > longest ? name.ToString(0, longest) : name.ToString())}-{starter}.service";
    }

    /// <summary>Why nobody watches, with what comes instead; null: somebody does.</summary>
    public string? Trouble()
    {
        if (_trouble is null && _asks is { } asks)
        {
            var said = "";
            if (asks.Wait(_answers) is not { } exit)
                _trouble = "systemd does not answer";
            else if (exit != 0)
                _trouble = (said = Said(asks)) is "" ? $"systemd-run ended with exit code {exit}" : said;
        }
        return _trouble is null
            ? null
            : $"nobody watches over the VM: {_trouble}; should it die without its post-stop, gpu-handoff-recover.timer brings the GPU home, or gpu-handoff reconcile by hand";
    }

    static string Said(Spawned asks)
    {
        Span<byte> buffer = stackalloc byte[1024];
        var got = Libc.Read(asks.FromChild, buffer, buffer.Length);
        return got > 0 ? Encoding.UTF8.GetString(buffer[..(int)got]).Trim().ReplaceLineEndings("; ") : "";
    }

    public void Dispose() => _asks?.Dispose();
}
