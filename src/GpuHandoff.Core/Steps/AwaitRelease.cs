using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>
/// Waits until those that were stopped have really let go. A stop is a promise (a unit may leave processes behind,
/// KillMode=process); a closed file and a module's count are facts. Changes nothing.
/// </summary>
/// <param name="Modules">Those that nobody may use any more.</param>
/// <param name="Users">Those that were stopped.</param>
public sealed record AwaitRelease(ImmutableArray<string> Modules, ImmutableArray<GpuUser> Users) : Step
{
    static readonly TimeSpan _patience = TimeSpan.FromSeconds(5);

    // A user's own manager outlives his last login by 10 s (logind.conf(5), UserStopDelaySec), and with it what runs below it.
    static readonly TimeSpan _patienceWithSessions = TimeSpan.FromSeconds(20);

    static readonly TimeSpan _between = TimeSpan.FromMilliseconds(50);

    public override string Say() => "wait until what was stopped has let go";

    public override Step? Undo() => null;

    public override Position Look(IKernel kernel) => WhyNot(kernel) is null ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        var patience = Users.Any(u => u.KeepsASession() || u.Of.Session is not null) ? _patienceWithSessions : _patience;
        var until = kernel.Uptime + patience;
        while (WhyNot(kernel) is { } busy)
        {
            if (kernel.Uptime >= until)
                throw new KernelRefused(Say(), Errno.Busy, $"{busy}, {patience.TotalSeconds:0} s after everything was stopped");
            kernel.Pause(_between);
        }
    }

    string? WhyNot(IKernel kernel)
    {
        if (Users.FirstOrDefault(u => Holds(u, kernel)) is { } user)
            return $"{user} still has it open";
        if (Modules is [])
            return null;
        var busy = ModuleList.Parse(kernel.Read(Sys.Proc / "modules") ?? "").FirstOrDefault(m => Modules.Contains(m.Name) && m.Users() > 0);
        return busy is null ? null : $"module {busy.Name} has {busy.Users()} users that are no modules";
    }

    static bool Holds(GpuUser user, IKernel kernel)
    {
        var files = Sys.Proc / user.Pid.ToString(CultureInfo.InvariantCulture) / "fd";
        return ProcessStat.Lives(user.Pid, user.Started, kernel)
            // A mapping goes with its process.
            && (user.Mapped || kernel.OpenIn(files, (major, minor) => (major, minor) == (user.Node.Major, user.Node.Minor), Looking.Alone).Count > 0);
    }
}
