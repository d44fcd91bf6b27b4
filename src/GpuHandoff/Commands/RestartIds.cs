using System.Collections.Immutable;
using System.CommandLine.Parsing;
using GpuHandoff.Goals;

namespace GpuHandoff.Commands;

/// <summary>LXC_RESTART_IDS="107 115": Proxmox's containers that use the GPU by their admin's word.</summary>
static class RestartIds
{
    public const string Name = "LXC_RESTART_IDS";

    // PVE numbers guests from 100 (PVE/JSONSchema.pm: pve_verify_vmid).
    const int LongestId = 9;

    public static ImmutableArray<string> Said() => Parse(Environment.GetEnvironmentVariable(Name) ?? "").Ids;

    /// <summary>A word that is no number is a mistake on the command line: what it meant would be left running, or worse.</summary>
    public static void Check(CommandResult result)
    {
        // On the way back the record tells what to start, and nobody reads them.
        if (result.Children.OfType<ArgumentResult>().SelectMany(a => a.Tokens).Any(t => HandOver.TargetOf(t.Value) == Target.Host))
            return;
        if (Parse(Environment.GetEnvironmentVariable(Name) ?? "").Wrong is { } word)
            result.AddError($"{Name} takes numbers of containers, such as \"107 115\", not \"{word}\"");
    }

    // 107 115          107,115
    public static (ImmutableArray<string> Ids, string? Wrong) Parse(string text)
    {
        var words = text.Split([' ', ',', '\t', '\n'], StringSplitOptions.RemoveEmptyEntries);
        return ([.. words.Where(IsId).Distinct()], words.FirstOrDefault(word => !IsId(word)));
    }

    static bool IsId(string word) => word.Length is >= 3 and <= LongestId && word[0] != '0' && word.All(char.IsAsciiDigit);
}
