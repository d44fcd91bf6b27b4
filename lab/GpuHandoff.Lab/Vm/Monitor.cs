using System.Text.Json.Nodes;

namespace GpuHandoff.Lab.Vm;

/// <summary>QEMU's own control socket (QMP).</summary>
sealed class Monitor : IDisposable
{
    static readonly TimeSpan Limit = TimeSpan.FromSeconds(20);
    readonly JsonLine line;

    public Monitor(string path)
    {
        line = new(path);
        _ = line.Receive(Limit) ?? throw new LabVmLost("QEMU's monitor does not greet");
        Ask("qmp_capabilities");
    }

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
            // Events come in between.
        }
        throw new LabVmLost($"QEMU's monitor does not answer {command}");
    }

    public void Dispose() => line.Dispose();
}
