using System.Text.Json;
using GpuHandoff.Formats;
using GpuHandoff.Machines;
using GpuHandoff.Plans;

namespace GpuHandoff.Screen;

/// <summary>Words go to stderr, what was asked for goes to stdout.</summary>
static class Say
{
    public const string Tag = "[gpu-handoff]";

    public static void Line(string text) => Line(text, Console.Error);

    public static void Line(string text, TextWriter output) => output.WriteLine($"{Tag} {text}");

    public static void Trouble(string what, IEnumerable<string> evidence, string? hint, string? state) =>
        Trouble(what, evidence, hint, state, Console.Error);

    /// <summary>What happened, the evidence, what to do, the state now.</summary>
    public static void Trouble(string what, IEnumerable<string> evidence, string? hint, string? state, TextWriter output)
    {
        Line(what, output);
        foreach (var line in evidence)
            Line($"  {line}", output);
        if (hint is not null)
            Line($"hint: {hint}", output);
        if (state is not null)
            Line(state, output);
    }

    public static void Refused(Answer.Refused refused, bool json)
    {
        if (json)
        {
            Data(Report.Of(refused));
            return;
        }
        if (refused.Findings is [var only] && only.What == refused.What)
        {
            Trouble(only.What, only.Evidence, only.Hint, "nothing was changed");
            return;
        }
        Line($"{refused.What}:");
        foreach (var finding in refused.Findings)
            Trouble($"{finding.What} [{finding.Code}]", finding.Evidence, finding.Hint, null);
        Line("nothing was changed");
    }

    public static void Data(Machine machine) => Console.Out.WriteLine(JsonSerializer.Serialize(machine, Json.Default.Machine));

    public static void Data(Report report) => Console.Out.WriteLine(JsonSerializer.Serialize(report, ReportJson.Default.Report));
}
