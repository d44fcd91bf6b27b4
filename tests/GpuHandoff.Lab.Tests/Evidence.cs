using System.Runtime.CompilerServices;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace GpuHandoff.Lab.Tests;

/// <summary>What docs/reliability.md is made of: one line of JSON for each fault that a case has shown.</summary>
static class Evidence
{
    static readonly string _path = Path.Combine(LabPlaces.Repository, "artifacts", "results", "reliability-lab.jsonl");
    static readonly JsonSerializerOptions _readable = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>To be called where the case has shown it, and not before. A later run of the case replaces its line.</summary>
    /// <param name="fault">What was done to the tool.</param>
    /// <param name="did">What the tool did about it.</param>
    /// <param name="saw">What a user saw.</param>
    /// <param name="figures">Measured here and now, rounded; empty where there is nothing to measure.</param>
    public static void Record(string fault, string did, string saw, string figures = "", [CallerMemberName] string test = "")
    {
        Directory.CreateDirectory(Path.GetDirectoryName(_path)!);
        var others = File.Exists(_path) ? File.ReadAllLines(_path).Where(line => !IsAbout(line, test, fault)) : [];
        var line = new JsonObject { ["test"] = test, ["fault"] = fault, ["did"] = did, ["saw"] = saw, ["figures"] = figures };
        File.WriteAllLines(_path, [.. others, line.ToJsonString(_readable)]);
    }

    static bool IsAbout(string line, string test, string fault) =>
        JsonNode.Parse(line) is { } record && (string?)record["test"] == test && (string?)record["fault"] == fault;
}
