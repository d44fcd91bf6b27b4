using System.Text.Json.Nodes;

namespace GpuHandoff.Lab.Vm;

/// <summary>QEMU's own control socket (QMP).</summary>
sealed class Monitor : IDisposable
{
    static readonly TimeSpan Limit = TimeSpan.FromSeconds(20);
    readonly JsonLine line;
    readonly List<string> events = [];

    public Monitor(string path)
    {
        line = new(path);
        _ = line.Receive(Limit) ?? throw new LabVmLost("QEMU's monitor does not greet");
        Ask("qmp_capabilities");
    }

    /// <summary>Waits for an event; those that came with the answers so far are remembered.</summary>
    public void WaitFor(string @event, TimeSpan limit)
    {
        var until = DateTime.UtcNow + limit;
        while (!events.Remove(@event))
        {
            var message = line.Receive(until - DateTime.UtcNow)
                ?? throw new LabVmLost($"QEMU has not reported {@event} within {limit.TotalMinutes:f0} min");
            Remember(message);
        }
    }

    public void ForgetEvents() => events.Clear();

    public JsonNode? Ask(string command, JsonObject? arguments = null)
    {
        var message = new JsonObject { ["execute"] = command };
        if (arguments is not null)
            message["arguments"] = arguments;
        line.Send(message);

        var until = DateTime.UtcNow + Limit;
        while (line.Receive(until - DateTime.UtcNow) is { } answer)
        {
            if (answer["error"] is { } error)
                throw new LabVmLost($"QEMU refused {command}: {error["desc"]}");
            if (answer.ContainsKey("return"))
                return answer["return"];
            Remember(answer);
        }
        throw new LabVmLost($"QEMU's monitor does not answer {command}");
    }

    void Remember(JsonObject message)
    {
        if (message["event"] is { } name)
            events.Add(name.GetValue<string>());
    }

    public void Dispose() => line.Dispose();
}
