using System.Net.Sockets;

namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>One PCI function, served to QEMU's x-pci-proxy-dev over a socket by a thread of its own.</summary>
public sealed class VirtualFunction : IDisposable
{
    readonly ConfigSpace config;
    readonly IRegisters registers;
    readonly SocketToChild socket = new();
    readonly Thread thread;
    bool isOnTheBus = true;

    public VirtualFunction(FunctionKind kind, string logPath)
    {
        Kind = kind;
        Log = new(logPath);
        registers = Registers(kind);
        config = new(kind, how =>
        {
            Log.Add(TrafficKind.Reset, how);
            registers.Reset();
        });
        thread = new(Serve) { IsBackground = true, Name = $"virtual {kind.Name}" };
    }

    public FunctionKind Kind { get; }

    public TrafficLog Log { get; }

    /// <summary>Whether it answers. A card that fell off the bus reads as ones.</summary>
    internal bool IsOnTheBus { get => Volatile.Read(ref isOnTheBus); set => Volatile.Write(ref isOnTheBus, value); }

    /// <summary>What ended the conversation, if QEMU's closing of the socket did not.</summary>
    public Exception? Failure { get; private set; }

    /// <summary>The descriptor that QEMU inherits; to be closed here with <see cref="Inherited"/> once QEMU has it.</summary>
    internal int DescriptorForQemu => socket.ChildDescriptor;

    internal void Start() => thread.Start();

    internal void Inherited() => socket.CloseChildEnd();

    void Serve()
    {
        var header = new byte[ProxyMessage.HeaderSize];
        var body = new byte[ProxyMessage.LargestBody];
        try
        {
            while (Receive(header))
            {
                var (command, size) = ProxyMessage.ReadHeader(header);
                if (!Receive(body.AsSpan(0, size)))
                    throw new ProtocolError($"QEMU hung up within {command}");
                if (Answer(command, body.AsSpan(0, size)) is { } value)
                    Send(ProxyMessage.Reply(value));
            }
        }
        catch (Exception trouble) when (trouble is SocketException or ObjectDisposedException)
        {
            // QEMU is gone, or we are: the VM's driver notices the one and began the other.
        }
        catch (Exception trouble)
        {
            Failure = trouble;
            // Hang up: QEMU then fails its next access, instead of waiting for an answer for ever.
            socket.Dispose();
        }
    }

    ulong? Answer(ProxyCommand command, ReadOnlySpan<byte> body)
    {
        if (!IsOnTheBus && command is not (ProxyCommand.SyncSystemMemory or ProxyCommand.SetInterrupt))
            return ulong.MaxValue;
        switch (command)
        {
            case ProxyCommand.ConfigRead:
                var (from, _, length) = ProxyMessage.ReadConfig(body);
                return config.Read(from, length);
            case ProxyCommand.ConfigWrite:
                var (to, value, size) = ProxyMessage.ReadConfig(body);
                config.Write(to, value, size);
                return 0;
            case ProxyCommand.BarRead:
                return ReadBar(body);
            case ProxyCommand.BarWrite:
                WriteBar(body);
                return 0;
            case ProxyCommand.DeviceReset:
                config.Reset("machine");
                return 0;
            case ProxyCommand.SyncSystemMemory or ProxyCommand.SetInterrupt:
                return null;    // we do no DMA and raise no interrupt; QEMU waits for no reply
            default:
                throw new ProtocolError($"nobody answers {command}");
        }
    }

    ulong ReadBar(ReadOnlySpan<byte> body)
    {
        var (address, _, length) = ProxyMessage.ReadBar(body);
        if (config.Find(address) is not var (bar, offset))
            return ulong.MaxValue;      // as a bus does where nobody answers
        var value = registers.Read(bar.Index, offset, length);
        Log.Add(TrafficKind.BarRead, $"bar{bar.Index}+{offset:x}/{length}", value);
        return value;
    }

    void WriteBar(ReadOnlySpan<byte> body)
    {
        var (address, value, length) = ProxyMessage.ReadBar(body);
        if (config.Find(address) is not var (bar, offset))
            return;
        Log.Add(TrafficKind.BarWrite, $"bar{bar.Index}+{offset:x}/{length}", value);
        registers.Write(bar.Index, offset, value, length);
    }

    // SYNC_SYSMEM and SET_IRQFD bring descriptors along. A plain receive has no room for them, so the kernel closes them
    // (net/unix/af_unix.c:unix_stream_read_generic ends in scm_recv, which drops what has no control buffer).
    bool Receive(Span<byte> buffer)
    {
        for (var got = 0; got < buffer.Length;)
        {
            var count = socket.Ours.Receive(buffer[got..]);
            if (count == 0)
                return got == 0 ? false : throw new ProtocolError("QEMU hung up within a message");
            got += count;
        }
        return true;
    }

    void Send(ReadOnlySpan<byte> message)
    {
        while (!message.IsEmpty)
            message = message[socket.Ours.Send(message)..];
    }

    static IRegisters Registers(FunctionKind kind) => kind.Class switch
    {
        0x030000 or 0x030200 => new GpuRegisters(),
        0x040300 => new AudioRegisters(),
        0x0c0330 => new UsbRegisters(),
        _ => new PlainRegisters(),
    };

    public void Dispose()
    {
        socket.Dispose();
        if (thread.IsAlive)
            thread.Join(TimeSpan.FromSeconds(5));
        Log.Dispose();
    }
}
