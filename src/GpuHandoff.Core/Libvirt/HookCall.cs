using GpuHandoff.Guests;

namespace GpuHandoff.Libvirt;

/// <summary>The moments of a domain at which libvirt calls /etc/libvirt/hooks/qemu (util/virhook.c:virHookQemuOp).</summary>
public enum Moment
{
    /// <summary>Before libvirt has done anything for the start. Where we fail the domain does not start.</summary>
    Prepare,

    /// <summary>
    /// After libvirt has done everything for the end. It comes after a start that failed as well, also where it was our own
    /// prepare that failed (qemu/qemu_process.c:qemuProcessInit goes to qemuProcessStop).
    /// </summary>
    Release,

    /// <summary>Its QEMU runs, or libvirt has found it running. <b>Where we fail libvirt kills it.</b></summary>
    Runs,

    /// <summary>One at which there is nothing to do: start, stopped, migrate, restore, attach.</summary>
    Other,
}

/// <summary>What libvirt says when it calls a hook: the domain's name, the operation, whether that begins or ends, and a word more.</summary>
public sealed record HookCall(string Domain, Moment Moment)
{
    public Guest Guest() => new(VmManager.Libvirt, Domain);

    // win11 prepare begin -
    // win11 release end shutdown          before 10.5.0: -
    /// <summary>Null: these are not libvirt's words. No other command line of ours is like them.</summary>
    public static HookCall? Of(IReadOnlyList<string> arguments) => arguments switch
    {
        [var domain, "prepare", "begin", _] => new(domain, Moment.Prepare),
        [var domain, "release", "end", _] => new(domain, Moment.Release),
        [var domain, "started" or "reconnect", "begin", _] => new(domain, Moment.Runs),
        [var domain, "start" or "stopped" or "migrate" or "restore" or "attach", "begin" or "end", _] => new(domain, Moment.Other),
        _ => null,
    };
}
