using System.Buffers.Binary;

namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>The commands of QEMU's x-pci-proxy-dev (include/hw/remote/mpqemu-link.h).</summary>
enum ProxyCommand
{
    SyncSystemMemory = 0,
    Return = 1,
    ConfigWrite = 2,
    ConfigRead = 3,
    BarWrite = 4,
    BarRead = 5,
    SetInterrupt = 6,
    DeviceReset = 7,
}

/// <summary>One message: <c>i32 command, 4 bytes of padding, u64 size</c>, then the body.</summary>
static class ProxyMessage
{
    public const int HeaderSize = 16;

    /// <summary>The largest body is SYNC_SYSMEM's 192 bytes; more means that we lost the thread.</summary>
    public const int LargestBody = 256;

    public static (ProxyCommand Command, int Size) ReadHeader(ReadOnlySpan<byte> header)
    {
        var command = BinaryPrimitives.ReadInt32LittleEndian(header);
        var size = BinaryPrimitives.ReadUInt64LittleEndian(header[8..]);
        return (command is >= 0 and <= 7 and not (int)ProxyCommand.Return, size <= LargestBody) switch
        {
            (true, true) => ((ProxyCommand)command, (int)size),
            (false, _) => throw new ProtocolError($"QEMU sent the unknown command {command} ({size} bytes)"),
            _ => throw new ProtocolError($"QEMU sent {(ProxyCommand)command} with {size} bytes"),
        };
    }

    /// <summary><c>u32 address, u32 value, i32 length</c></summary>
    public static (int Address, uint Value, int Length) ReadConfig(ReadOnlySpan<byte> body) =>
        (checked((int)BinaryPrimitives.ReadUInt32LittleEndian(body)),
         BinaryPrimitives.ReadUInt32LittleEndian(body[4..]),
         Size(BinaryPrimitives.ReadInt32LittleEndian(body[8..]), 4));

    /// <summary><c>u64 guest address, u64 value, u32 size, u8 memory</c></summary>
    public static (ulong Address, ulong Value, int Length) ReadBar(ReadOnlySpan<byte> body) =>
        (BinaryPrimitives.ReadUInt64LittleEndian(body),
         BinaryPrimitives.ReadUInt64LittleEndian(body[8..]),
         Size(BinaryPrimitives.ReadInt32LittleEndian(body[16..]), 8));

    public static byte[] Reply(ulong value)
    {
        var message = new byte[HeaderSize + 8];
        BinaryPrimitives.WriteInt32LittleEndian(message, (int)ProxyCommand.Return);
        BinaryPrimitives.WriteUInt64LittleEndian(message.AsSpan(8), 8);
        BinaryPrimitives.WriteUInt64LittleEndian(message.AsSpan(HeaderSize), value);
        return message;
    }

    static int Size(int length, int most) => length >= 1 && length <= most
        ? length
        : throw new ProtocolError($"QEMU asked for {length} bytes at once");
}
