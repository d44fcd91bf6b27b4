using System.Collections.Immutable;
using System.Text;
using GpuHandoff.Machines;

namespace GpuHandoff.Goals;

/// <summary>The policy that holds, as a file that says the same; behind each value who said it.</summary>
public static class PolicyYaml
{
    const int CommentColumn = 40;

    /// <summary>Everything, or what holds for some cards, whole.</summary>
    public static string Of(PolicySet said, Machine machine, ImmutableArray<Gpu>? chosen = null)
    {
        var text = new StringBuilder();
        if (chosen is null)
            Section(text, "", "", said.Effective(null, machine));
        var cards = (from gpu in chosen ?? machine.Gpus
                     let values = chosen is null ? said.Differing(gpu, machine) : said.Effective(gpu, machine)
                     where values is not []
                     select (gpu, values)).ToList();
        if (cards is not [])
            text.Append("gpus:\n");
        foreach (var (gpu, values) in cards)
        {
            Line(text, $"  \"{gpu.Address}\":", gpu.Display().Name);
            Section(text, "    ", "", values);
        }
        var vms = chosen is null ? said.Vms.Select(v => v.Vm).Distinct().OrderBy(vm => vm.Length).ThenBy(vm => vm, StringComparer.Ordinal).ToList() : [];
        if (vms is not [])
            text.Append("vms:\n");
        foreach (var vm in vms)
        {
            text.Append("  ").Append(vm).Append(":\n");
            Section(text, "    ", "", said.Effective(vm));
        }
        return text.ToString();
    }

    /// <summary>The keys of one map, then those of the maps in it.</summary>
    static void Section(StringBuilder text, string indent, string prefix, ImmutableArray<Effective> values)
    {
        var named = prefix is "users.unit." or "users.container.";
        var here = values.Where(v => v.Key.StartsWith(prefix, StringComparison.Ordinal)).ToList();
        foreach (var value in here.Where(v => named || !v.Key[prefix.Length..].Contains('.')))
            Line(text, $"{indent}{Quoted(value.Key[prefix.Length..])}: {value.Value}", value.From.ToString());
        if (named)
            return;
        foreach (var section in here.Select(v => v.Key[prefix.Length..]).Where(k => k.Contains('.')).Select(k => k.Split('.')[0]).Distinct())
        {
            text.Append(indent).Append(section).Append(":\n");
            Section(text, indent + "  ", $"{prefix}{section}.", values);
        }
    }

    static void Line(StringBuilder text, string line, string? comment) =>
        text.Append(comment is null ? line : $"{line.PadRight(CommentColumn - 1)} # {comment}").Append('\n');

    static string Quoted(string name) => name.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.') && name is not ['-', ..]
        ? name
        : $"\"{name.Replace("\\", "\\\\")}\"";
}
