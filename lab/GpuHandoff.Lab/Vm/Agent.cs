using System.Text.Json.Nodes;

namespace GpuHandoff.Lab.Vm;

/// <summary>The agent in the guest (qemu-ga), over a virtio-serial port.</summary>
sealed class Agent : IDisposable
{
    // The agent answers at once, but an emulated machine may be busy for long.
    static readonly TimeSpan Limit = TimeSpan.FromSeconds(60);
    readonly JsonLine line;
    readonly Lock gate = new();
    int syncs;

    public Agent(string path) => line = new(path);

    /// <summary>Asks whether it is there. Until it is, the question waits in the socket.</summary>
    public void SendSync()
    {
        lock (gate)
        {
            line.Send(Message("guest-sync-delimited", new() { ["id"] = ++syncs }), sentinel: true);
        }
    }

    public bool ReceivedSync(TimeSpan limit)
    {
        lock (gate)
            return line.Receive(limit) is { } answer && answer["return"]?.GetValue<int>() == syncs;
    }

    public JsonNode? Ask(string command, JsonObject? arguments = null)
    {
        lock (gate)
        {
            line.Send(Message(command, arguments));
            var answer = line.Receive(Limit) ?? throw new LabVmLost($"the guest's agent does not answer {command}");
            return answer["error"] is { } error
                ? throw new LabVmLost($"the guest's agent refused {command}: {error["desc"]}")
                : answer["return"];
        }
    }

    static JsonObject Message(string command, JsonObject? arguments)
    {
        var message = new JsonObject { ["execute"] = command };
        if (arguments is not null)
            message["arguments"] = arguments;
        return message;
    }

    public void Dispose() => line.Dispose();
}
