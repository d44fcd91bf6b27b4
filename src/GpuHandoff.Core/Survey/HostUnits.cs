using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>What systemd tells of the host's units around a card. Asked through systemctl, and only where there is reason to.</summary>
static class HostUnits
{
    public const string DisplayManager = "display-manager.service";

    const int Deepest = 4;

    // systemd.unit(5), the unit search path; what is made at run time (/run) is not installed.
    static readonly string[] _installed =
        ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

    /// <summary>
    /// The targets of these cards; none where the template is not installed, and then systemd is not asked. Null: systemd does
    /// not answer. It is asked once then, and no second time: each silence costs a program's whole time.
    /// </summary>
    public static ImmutableArray<HostTarget>? Targets(IEnumerable<PciAddress> gpus, IKernel kernel)
    {
        if (!_installed.Any(folder => kernel.Exists(new SysPath(folder) / HostTarget.Template)))
            return [];
        var addresses = gpus.ToDictionary(HostTarget.UnitOf);
        if (Show(addresses.Keys, kernel) is not { } units)
            return null;
        var targets = ImmutableArray.CreateBuilder<HostTarget>();
        foreach (var unit in units.Where(u => addresses.ContainsKey(u.GetValueOrDefault("Id", ""))))
        {
            var name = unit["Id"];
            if ((IsActive(unit) ? BoundTo(unit, kernel) : []) is not { } bound)
                return null;
            targets.Add(new(addresses[name], name, IsActive(unit), bound) { Dependants = [.. Dependants(unit).Distinct()] });
        }
        return targets.ToImmutable();
    }

    /// <summary>Whether the host is going down; no where systemd does not say so.</summary>
    public static bool HostIsStopping(IKernel kernel)
    {
        try
        {
            // systemctl(1): 0 for "running" alone; what it says counts.
            return (kernel.SystemState() ?? kernel.RunProgram(Programs.Systemctl, ["is-system-running"], Limits.Default.Program).Output.Trim()) == "stopping";
        }
        catch (Exception e) when (e is KernelRefused or KernelSilent)
        {
            // What was asked for counts then: a card that nobody brings home stays away for ever.
            return false;
        }
    }

    /// <summary>The unit that display-manager.service stands for, where it is active.</summary>
    public static string? ActiveDisplayManager(IKernel kernel) =>
        Ask(["show", "--property=Id,ActiveState", "--", DisplayManager], kernel) is [var unit] && IsActive(unit)
            ? unit.GetValueOrDefault("Id", DisplayManager)
            : null;

    // Id=ollama.service MainPID=4211 KillMode=control-group TriggeredBy= Type=simple, a line each
    /// <summary>What systemd tells of these services; null: it does not answer. One that it does not know of is left out.</summary>
    public static ImmutableArray<Service>? Services(IReadOnlyList<string> names, IKernel kernel) => names is [] ? [] :
        Ask(["show", "--property=Id,MainPID,KillMode,TriggeredBy,Type", "--", .. names], kernel) is { } units
            ? [.. units.Select(u => ServiceOf(u, kernel)).OfType<Service>()]
            : null;

    static Service? ServiceOf(Dictionary<string, string> unit, IKernel kernel) =>
        unit.TryGetValue("Id", out var name) && unit.TryGetValue("KillMode", out var killMode) && unit.TryGetValue("Type", out var type)
        && int.TryParse(unit.GetValueOrDefault("MainPID"), NumberStyles.None, CultureInfo.InvariantCulture, out var main)
            ? new(name, main, main == 0 ? null : ProcessFiles.UserOf(main, kernel), killMode, type, [.. UnitProperties.List(unit, "TriggeredBy")])
            : null;

    /// <summary>
    /// Active units that a stop job takes down with one (systemd.unit(5): BindsTo=, PartOf= and Requires= of theirs), and
    /// those that hang on them in turn. Null: systemd does not answer.
    /// </summary>
    static ImmutableArray<string>? BoundTo(Dictionary<string, string> target, IKernel kernel)
    {
        List<string> bound = [];
        var seen = new HashSet<string>(StringComparer.Ordinal);
        var next = Dependants(target).Where(seen.Add).ToList();
        for (var depth = 0; next.Count > 0 && depth < Deepest; depth++)
        {
            if (Show(next, kernel) is not { } shown)
                return null;
            var active = shown.Where(IsActive).ToList();
            bound.AddRange(active.Select(u => u.GetValueOrDefault("Id", "")).Where(u => u.Length > 0 && !bound.Contains(u)));
            next = [.. active.SelectMany(Dependants).Where(seen.Add)];
        }
        return [.. bound];
    }

    static IEnumerable<string> Dependants(Dictionary<string, string> unit) =>
        ((string[])["BoundBy", "ConsistsOf", "RequiredBy"]).SelectMany(property => UnitProperties.List(unit, property));

    static bool IsActive(Dictionary<string, string> unit) =>
        unit.GetValueOrDefault("ActiveState", "") is "active" or "reloading" or "refreshing" or "activating";

    static List<Dictionary<string, string>>? Show(IEnumerable<string> units, IKernel kernel) =>
        Ask(["show", "--property=Id,ActiveState,BoundBy,ConsistsOf,RequiredBy", "--", .. units], kernel);

    static List<Dictionary<string, string>>? Ask(IReadOnlyList<string> arguments, IKernel kernel)
    {
        try
        {
            var (exit, output) = kernel.RunProgram(Programs.Systemctl, arguments, Limits.Default.Program);
            return exit == 0 ? UnitProperties.Parse(output) : null;
        }
        catch (KernelRefused)
        {
            // A machine without systemd, a recorded one, or a systemd that hangs.
            return null;
        }
    }
}
