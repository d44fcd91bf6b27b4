using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;

namespace GpuHandoff.Lab.Vm;

/// <summary>A conversation in JSON, one object a line: QEMU's monitor and the guest's agent both talk so.</summary>
sealed class JsonLine : IDisposable
{
    readonly Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    readonly byte[] buffer = new byte[0x1_0000];
    // What was read of a line that has not ended yet; it stays for the next call.
    readonly MemoryStream line = new();
    int start;
    int end;

    public JsonLine(string path) => socket.Connect(new UnixDomainSocketEndPoint(path));

    public void Send(JsonObject message, bool sentinel = false)
    {
        var bytes = Encoding.UTF8.GetBytes((sentinel ? "\u0000" : "") + message.ToJsonString() + "\n");
        if (sentinel)
            bytes[0] = 0xff;    // the agent's parser starts afresh at this byte, whatever stood before
        try
        {
            for (var sent = 0; sent < bytes.Length;)
                sent += socket.Send(bytes.AsSpan(sent));
        }
        catch (SocketException)
        {
            throw HungUp();
        }
    }

    /// <summary>The next object, or null when none came in time.</summary>
    public JsonObject? Receive(TimeSpan limit)
    {
        var until = DateTime.UtcNow + limit;
        while (true)
        {
            if (start == end)
            {
                var left = until - DateTime.UtcNow;
                if (left <= TimeSpan.Zero || !socket.Poll(left, SelectMode.SelectRead))
                    return null;
                start = 0;
                end = Receive();
                if (end == 0)
                    throw HungUp();
            }
            var next = buffer[start++];
            switch (next)
            {
                case 0xff:
                    line.SetLength(0);
                    break;
                case (byte)'\n' when line.Length > 0:
                    var whole = JsonNode.Parse(line.ToArray())!.AsObject();
                    line.SetLength(0);
                    return whole;
                case (byte)'\n' or (byte)'\r':
                    break;
                default:
                    line.WriteByte(next);
                    break;
            }
        }
    }

    // A QEMU that ends with something unread in its socket is a reset here, not an end.
    int Receive()
    {
        try
        {
            return socket.Receive(buffer);
        }
        catch (SocketException)
        {
            return 0;
        }
    }

    static LabVmLost HungUp() => new("QEMU hung up");

    public void Dispose()
    {
        socket.Dispose();
        line.Dispose();
    }
}
