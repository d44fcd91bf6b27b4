using System.Collections.Immutable;
using System.Text.Json;

namespace GpuHandoff.Proxmox;

/// <summary>QEMU's monitor, as far as it is asked: which thread each vCPU is.</summary>
/// <remarks>
/// qapi/machine.json: query-cpus-fast. Both commands are sent at once: QEMU takes them in their order, and answers in it;
/// its greeting and its events come in between.
/// </remarks>
public static class Qmp
{
    const string Hello = "gpu-handoff-hello";
    const string Cpus = "gpu-handoff-cpus";

    public const string AskForCpus = $$"""
        {"execute": "qmp_capabilities", "id": "{{Hello}}"}
        {"execute": "query-cpus-fast", "id": "{{Cpus}}"}

        """;

    /// <summary>Whether the answer is there, whichever it is.</summary>
    public static bool IsAll(string heard) => Answer(heard) is not null;

    // {"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "pve-qemu-kvm_10.0.2-4"}, "capabilities": []}}
    // {"return": {}, "id": "gpu-handoff-hello"}
    // {"timestamp": {"seconds": 1765000000, "microseconds": 1}, "event": "RTC_CHANGE", "data": {"offset": 0, "qom-path": "…"}}
    // {"return": [{"thread-id": 4712, "props": {"core-id": 0, …}, "qom-path": "…", "cpu-index": 0, "target": "x86_64"}, …], "id": "gpu-handoff-cpus"}
    /// <summary>The threads of the vCPUs, by their numbers.</summary>
    /// <exception cref="NotProxmox">It is no such answer.</exception>
    public static ImmutableArray<int> Threads(string heard)
    {
        var answer = Answer(heard) ?? throw new NotProxmox("QEMU's monitor has hung up without an answer");
        if (answer.TryGetProperty("error", out var error))
            throw new NotProxmox($"QEMU's monitor refuses: {(Text(error, "desc") is { } why ? why : "it does not say why")}");
        if (!answer.TryGetProperty("return", out var list) || list.ValueKind != JsonValueKind.Array)
            throw new NotProxmox("QEMU's monitor answers something else");
        var threads = new SortedDictionary<int, int>();
        foreach (var cpu in list.EnumerateArray())
        {
            if (Number(cpu, "cpu-index") is not { } index || Number(cpu, "thread-id") is not (> 1 and var thread) || !threads.TryAdd(index, thread))
                throw new NotProxmox("QEMU's monitor tells of a vCPU without a number or a thread of its own");
        }
        return [.. threads.Values];
    }

    static JsonElement? Answer(string heard)
    {
        foreach (var line in heard.Split('\n'))
        {
            // A line that is not complete yet is none.
            if (line.Trim() is not ['{', .., '}'] || !line.Contains("gpu-handoff-", StringComparison.Ordinal))
                continue;
            try
            {
                using var document = JsonDocument.Parse(line);
                // A refused greeting is the answer to all that follows.
                if (Text(document.RootElement, "id") is { } id && (id == Cpus || (id == Hello && document.RootElement.TryGetProperty("error", out _))))
                    return document.RootElement.Clone();
            }
            catch (JsonException)
            {
                // Half a line, or not QEMU.
            }
        }
        return null;
    }

    static string? Text(JsonElement element, string name) =>
        element.ValueKind == JsonValueKind.Object && element.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    static int? Number(JsonElement element, string name) =>
        element.ValueKind == JsonValueKind.Object && element.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.Number
            && value.TryGetInt32(out var number) && number >= 0 ? number : null;
}
