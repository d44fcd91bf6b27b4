using System.Collections.Immutable;
using System.Text.Json;
using GpuHandoff.Formats;
using GpuHandoff.Linux;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;

namespace GpuHandoff.Screen;

/// <summary>Words go to stderr, what was asked for goes to stdout.</summary>
static class Say
{
    public const string Tag = "[gpu-handoff]";

    /// <summary>What this process has changed on the machine.</summary>
    public static Footprint Footprint { get; } = new();

    public static void Line(string text) => Line(text, Output.Error);

    /// <summary>One message; where a program's words in it have lines of their own, each is tagged as ours.</summary>
    public static void Line(string text, Output output) => output.Write(string.Concat(PlainText.Lines(text).DefaultIfEmpty("").Select(line => $"{Tag} {line}\n")));

    public static void Trouble(string what, IEnumerable<string> evidence, string? hint, string? state)
    {
        foreach (var line in Lines(what, evidence, hint, state))
            Line(line);
    }

    /// <summary>What happened, the evidence, what to do, the state now.</summary>
    public static IEnumerable<string> Lines(string what, IEnumerable<string> evidence, string? hint, string? state)
    {
        yield return what;
        foreach (var line in evidence)
            yield return $"  {line}";
        if (hint is not null)
            yield return $"hint: {hint}";
        if (state is not null)
            yield return state;
    }

    /// <summary>A refusal for one reason, in words or as data.</summary>
    public static void Refused(string code, string what, IEnumerable<string> evidence, string hint, bool json) =>
        Refused(new(what, [new(code, what, [.. evidence], hint)]), json);

    public static void Refused(Answer.Refused refused, bool json)
    {
        if (json)
        {
            Data(Report.Of(refused) with { Changed = Footprint.Count == 0 ? null : Footprint.Changes() });
            return;
        }
        if (refused.Findings is [var only] && only.What == refused.What)
        {
            Trouble(only.What, only.Evidence, only.Hint, Footprint.State());
            return;
        }
        Line($"{refused.What}:");
        foreach (var finding in refused.Findings)
            Trouble($"{finding.What} [{finding.Code}]", finding.Evidence, finding.Hint, null);
        Line(Footprint.State());
    }

    /// <summary>What cannot be told of, since its record cannot be read.</summary>
    public static void Damage(ILedger ledger)
    {
        foreach (var damaged in ledger.Damaged())
            Line($"warning: {damaged}");
    }

    public static void Data(Machine machine) => Output.Standard.Write(JsonSerializer.Serialize(machine, Json.Plain.Machine) + "\n");

    public static void Data(PolicyReport report) => Output.Standard.Write(JsonSerializer.Serialize(report, ReportJson.Plain.PolicyReport) + "\n");

    public static void Data(GuestReport report) => Output.Standard.Write(JsonSerializer.Serialize(report, ReportJson.Plain.GuestReport) + "\n");

    public static void Data(ImmutableArray<LeaseReport> leases) =>
        Output.Standard.Write(JsonSerializer.Serialize(leases, ReportJson.Plain.ImmutableArrayLeaseReport) + "\n");

    public static void Data(Report report) => Output.Standard.Write(JsonSerializer.Serialize(report, ReportJson.Plain.Report) + "\n");
}
