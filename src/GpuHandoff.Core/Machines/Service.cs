using System.Collections.Immutable;

namespace GpuHandoff.Machines;

/// <summary>What systemd tells of a service of the system, as far as it says whose work its processes do.</summary>
/// <param name="MainPid">0: it knows of no main process.</param>
/// <param name="MainUser">The account that the main process runs as; null where there is none, or its status is not to be had.</param>
/// <param name="KillMode">systemd.kill(5): <c>control-group</c>, <c>mixed</c>, <c>process</c> or <c>none</c>.</param>
/// <param name="Type">systemd.service(5): <c>simple</c>, <c>oneshot</c> and so on.</param>
/// <param name="TriggeredBy">The timers, paths and sockets that start it.</param>
public sealed record Service(string Name, int MainPid, uint? MainUser, string KillMode, string Type, ImmutableArray<string> TriggeredBy)
{
    /// <summary>Whether a stop ends every process of it; else only the main one, or none.</summary>
    public bool EndsAll() => KillMode is not ("process" or "none");

    /// <summary>
    /// Whose work a process of it does. A unit is stopped as a whole for its own work only; see docs/decisions/0026.
    /// </summary>
    /// <remarks>
    /// By kind, from the unit files themselves: what runs others' jobs says that a stop leaves them alone (KillMode=process of
    /// cron, atd, slurmd, k3s, incus, docker, libvirtd, sshd and NetworkManager; none of dbus), or is itself a run of something
    /// that a timer starts (anacron). A socket starts a service for its clients, whose work is the service's own.
    /// </remarks>
    public Share ShareOf(int pid, uint? user) => this switch
    {
        _ when pid == MainPid => Share.Main,
        _ when !EndsAll() || Type == "oneshot" || TriggeredBy.Any(IsSchedule) => Share.Job,
        // ollama's runner, jellyfin's ffmpeg. One that runs as another account is another user's job, and without a main process
        // there is nothing to tell them by.
        { MainPid: > 0, MainUser: { } main } when user == main => Share.Work,
        _ => Share.Job,
    };

    static bool IsSchedule(string unit) => unit.EndsWith(".timer", StringComparison.Ordinal) || unit.EndsWith(".path", StringComparison.Ordinal);
}

/// <summary>What a process is to the service that it belongs to.</summary>
public enum Share
{
    /// <summary>Its main process.</summary>
    Main,

    /// <summary>A process that does the service's own work.</summary>
    Work,

    /// <summary>Something that the service runs for others.</summary>
    Job,

    /// <summary>systemd does not tell.</summary>
    Unknown,
}
