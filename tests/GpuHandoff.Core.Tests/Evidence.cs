using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using GpuHandoff.Core.Tests.Everywhere;

namespace GpuHandoff.Core.Tests;

/// <summary>What docs/reliability.md is made of: one line of JSON for each fault that a test has shown in the simulator.</summary>
static class Evidence
{
    static readonly Lock _one = new();
    static readonly JsonSerializerOptions _readable = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>To be called where the test has shown it, and not before. A later record of the same replaces its line.</summary>
    /// <param name="fault">What was done to the tool.</param>
    /// <param name="did">What the tool did about it.</param>
    /// <param name="saw">What a user saw.</param>
    /// <param name="figures">Counted here and now.</param>
    public static void Record(string fault, string did, string saw, string figures, [CallerMemberName] string test = "")
    {
        lock (_one)
        {
            var path = Place("reliability-sim.jsonl");
            var others = File.Exists(path) ? File.ReadAllLines(path).Where(line => (string?)JsonNode.Parse(line)?["fault"] != fault) : [];
            var line = new JsonObject { ["test"] = test, ["fault"] = fault, ["did"] = did, ["saw"] = saw, ["figures"] = figures };
            File.WriteAllLines(path, [.. others, line.ToJsonString(_readable)]);
        }
    }

    /// <summary>A line for each kind of mishap, with how its runs ended.</summary>
    public static void Soak(int first, int cases, Tally tally, TimeSpan took)
    {
        string Counts(IEnumerable<(string Mishap, string Outcome, int Count)> counts) =>
            string.Join(",", counts.GroupBy(c => c.Outcome).Select(g => $"\"{g.Key}\":{g.Sum(c => c.Count)}"));

        var lines = tally.Counts().GroupBy(c => c.Mishap).Select(m => $"  {{\"mishap\":\"{m.Key}\",{Counts(m)}}}");
        File.WriteAllText(
            Place("soak.json"),
            string.Create(
                CultureInfo.InvariantCulture,
                $"{{\"first\":{first},\"cases\":{cases},\"runs\":{tally.Runs},\"seconds\":{took.TotalSeconds:0},\"all\":{{{Counts(tally.Counts())}}},\"mishaps\":[\n{string.Join(",\n", lines)}\n]}}\n"));
    }

    static string Place(string name)
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "GpuHandoff.slnx")))
            folder = folder.Parent;
        var results = Directory.CreateDirectory(Path.Combine(folder?.FullName ?? ".", "artifacts", "results"));
        return Path.Combine(results.FullName, name);
    }
}
