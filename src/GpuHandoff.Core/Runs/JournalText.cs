using System.Text.Json;
using GpuHandoff.Formats;
using GpuHandoff.Plans;

namespace GpuHandoff.Runs;

/// <summary>
/// A run's diary as text, a JSON object a line: <c>{"journal":1,"plan":{…}}</c>, then <c>{"begins":0}</c>,
/// <c>{"ends":0}</c>, <c>{"undone":0}</c>, at last <c>{"left":4}</c> for each service that was not started though the GPU was
/// there, and <c>{"closes":"done"}</c>.
/// </summary>
public static class JournalText
{
    public const int Newest = 1;

    /// <summary>After so many ends that were none, a person has to look.</summary>
    const int MostTries = 3;

    public static string Opens(Plan plan) =>
        $$"""{"journal":{{Newest}},"plan":{{JsonSerializer.Serialize(plan, Json.Default.Plan)}}}""";

    public static string Begins(int step) => $$"""{"begins":{{step}}}""";

    public static string Ends(int step) => $$"""{"ends":{{step}}}""";

    public static string Undone(int step) => $$"""{"undone":{{step}}}""";

    public static string Left(int step) => $$"""{"left":{{step}}}""";

    public static string Closes(string how) => $$"""{"closes":"{{JsonEncodedText.Encode(how)}}"}""";

    /// <summary>A run that got stuck has no end: what it left is still to be taken back.</summary>
    public static string Closes(Outcome outcome) => outcome switch
    {
        Outcome.Done => Closes("done"),
        Outcome.RolledBack => Closes("rolled-back"),
        _ => Sticks,
    };

    public const string Sticks = """{"stuck":true}""";

    /// <summary>What a diary tells; null where its run has ended or had not begun anything.</summary>
    /// <remarks>
    /// A last line without its newline was being written when the power went: what it announces had not been begun, for a
    /// step begins after its line is on disk.
    /// </remarks>
    /// <exception cref="JournalUnreadable">A line before the last one is no line of a diary.</exception>
    public static Unfinished? Read(string text, string source)
    {
        var lines = text.Split('\n')[..^1];
        // Nearly every diary that is read has its end: no need to look at the rest.
        if (lines is [] or [_, .., "{\"closes\":\"done\"}" or "{\"closes\":\"rolled-back\"}"])
            return null;
        var plan = Plan(lines[0]);
        var count = plan.Steps().Count();
        var begun = new List<int>();
        var tries = 0;
        for (var number = 1; number < lines.Length; number++)
        {
            var (word, value) = Entry(lines[number], number + 1);
            switch (word)
            {
                case "closes":
                    return null;
                case "begins":
                    begun.Add(Step(value, number + 1));
                    break;
                case "undone":
                    begun.Remove(Step(value, number + 1));
                    break;
                case "ends" or "left":
                    _ = Step(value, number + 1);
                    break;
                case "stuck":
                    tries++;
                    break;
                default:
                    throw new JournalUnreadable(number + 1, $"\"{word}\" is no word of a journal");
            }
        }
        return new(plan, [.. begun], source, tries >= MostTries);

        int Step(JsonElement value, int line) => value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var step) && step >= 0 && step < count
            ? step
            : throw new JournalUnreadable(line, $"{value.GetRawText()} is no step of a plan of {count}");
    }

    static Plan Plan(string line)
    {
        try
        {
            using var opening = JsonDocument.Parse(line);
            var root = opening.RootElement;
            if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("journal", out var version) || !root.TryGetProperty("plan", out var body))
                throw new JournalUnreadable(1, "it does not begin as a journal does");
            if (version.ValueKind != JsonValueKind.Number || !version.TryGetInt32(out var number) || number is < 1 or > Newest)
                throw new JournalUnreadable(1, $"it has version {version.GetRawText()}, and this program knows {Newest}");
            return body.Deserialize(Json.Default.Plan) is { Phases.IsDefault: false, Gpus: { IsDefault: false } and not [] } plan
                && plan.Phases.All(p => p is { Steps.IsDefault: false } && p.Steps.All(s => s is not null))
                ? plan with
                {
                    Notes = plan.Notes.IsDefault ? [] : plan.Notes,
                    Keep = plan.Keep.IsDefault ? [] : plan.Keep,
                    Forget = plan.Forget.IsDefault ? [] : plan.Forget,
                }
                : throw new JournalUnreadable(1, "its plan is not whole");
        }
        catch (Exception e) when (e is JsonException or NotSupportedException or InvalidOperationException)
        {
            throw new JournalUnreadable(1, e.Message, e);
        }
    }

    static (string Word, JsonElement Value) Entry(string line, int number)
    {
        try
        {
            using var entry = JsonDocument.Parse(line);
            return entry.RootElement.ValueKind == JsonValueKind.Object && entry.RootElement.EnumerateObject().ToList() is [var only]
                ? (only.Name, only.Value.Clone())
                : throw new JournalUnreadable(number, "it is no line of a journal");
        }
        catch (JsonException e)
        {
            throw new JournalUnreadable(number, e.Message, e);
        }
    }
}

/// <summary>A diary that no run of ours wrote so.</summary>
public sealed class JournalUnreadable(int line, string what, Exception? cause = null) : Exception(what, cause)
{
    public int Line { get; } = line;
}
