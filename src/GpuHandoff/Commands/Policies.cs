using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Plans;
using GpuHandoff.Screen;

namespace GpuHandoff.Commands;

/// <summary>What the files in /etc and the command line say together.</summary>
static class Policies
{
    /// <summary>
    /// Null: a file is wrong, and that has been said. Half a policy is none: the other half may be the one that forbids. On the
    /// way back nothing is forbidden, and a slip of the pen must not keep the GPU, the console and the services away.
    /// </summary>
    /// <param name="told">Told of the refusal besides: a log.</param>
    public static PolicySet? For(Wish wish, Target target, Action<Answer.Refused>? told = null)
    {
        var said = target == Target.Host ? OrDefault(wish.Root, "the GPU comes back by the built-in policy") : For(wish.Root, wish.Json, told);
        return said is null ? null : said with { Flags = wish.Flags };
    }

    /// <summary>What the files alone say.</summary>
    public static PolicySet? For(DirectoryInfo? root, bool json, Action<Answer.Refused>? told = null)
    {
        var (said, errors, ignored) = Place.Policy(root).Read();
        foreach (var file in ignored)
            Say.Line(file);
        if (errors is [])
            return said;
        var refused = Of(errors);
        told?.Invoke(refused);
        Say.Refused(refused, json);
        return null;
    }

    /// <summary>
    /// A run that was killed is ended whatever the files say now: a mistake in them must not keep a GPU between its two ends. What
    /// that run was told is in its journal; the policy only says how long to wait and what to try beyond it.
    /// </summary>
    public static PolicySet ForRecovery() => OrDefault(root: null, "recover goes by the built-in policy");

    static PolicySet OrDefault(DirectoryInfo? root, string instead)
    {
        var (said, errors, ignored) = Place.Policy(root).Read();
        foreach (var file in ignored)
            Say.Line(file);
        if (errors is [])
            return said;
        foreach (var error in errors)
            Say.Line($"warning: {error}");
        Say.Line($"hint: gpu-handoff policy check FILE tells more; until it is mended {instead}");
        return PolicySet.Default;
    }

    public static Answer.Refused Of(ImmutableArray<PolicyError> errors)
    {
        ImmutableArray<Finding> findings = [.. errors.Select(e => new Finding("policy", e.ToString(), [], e.Hint))];
        return new(findings is [var only] ? only.What : $"the policy has {errors.Length} errors", findings);
    }
}
