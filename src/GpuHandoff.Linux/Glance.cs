using System.Buffers.Binary;
using System.Text;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>
/// Whether a start or an end of a VM can be any business of ours, by a few system calls and without understanding what is
/// read: the hook of a VM without a GPU costs every one of its starts. In doubt it is.
/// </summary>
public static class Glance
{
    // Proxmox's cluster file system takes no larger file; a lease is a hundred times smaller.
    const int Largest = 1 << 20;

    /// <summary>Whether a VM's configuration has a word of a device, or cannot be judged here.</summary>
    public static bool MayHaveDevices(string config)
    {
        var text = Read(config, out _);
        return text.IsEmpty || text.Length > Largest || text.IndexOf("\nhostpci"u8) >= 0 || text.StartsWith("hostpci"u8) || text.IndexOf("vfio-pci"u8) >= 0;
    }

    /// <summary>Whether one of the ledger's leases has a VM's number in it.</summary>
    public static bool MayBeLent(string folder, string vm)
    {
        var handle = Libc.Open(folder, Libc.ReadOnly | Libc.CloseOnExec | Libc.Folder);
        if (handle < 0)
            return Libc.LastError() != Kernel.Errno.NoEntry;
        try
        {
            Span<byte> buffer = stackalloc byte[8192];
            Span<byte> id = stackalloc byte[vm.Length + 2];
            (id[0], id[^1]) = ((byte)'"', (byte)'"');
            Encoding.ASCII.GetBytes(vm, id[1..]);
            long got;
            while ((got = Libc.GetDents(handle, buffer, buffer.Length)) > 0)
            {
                for (var rest = buffer[..(int)got]; rest.Length > 0; rest = rest[BinaryPrimitives.ReadUInt16LittleEndian(rest[Libc.DirentLength..])..])
                {
                    var name = rest[Libc.DirentName..];
                    name = name[..name.IndexOf((byte)0)];
                    // A lease that has ended since the folder was listed is none.
                    if (name.StartsWith("lease-"u8) && Read($"{folder}/{Encoding.UTF8.GetString(name)}", out var gone) is var lease
                        && !gone && (lease.IsEmpty || lease.Length > Largest || lease.IndexOf(id) >= 0))
                    {
                        return true;
                    }
                }
            }
            return got < 0;
        }
        finally
        {
            _ = Libc.Close(handle);
        }
    }

    /// <summary>Empty where it cannot be read; one byte more than the largest where there is more.</summary>
    static ReadOnlySpan<byte> Read(string path, out bool gone)
    {
        var handle = Libc.Open(path, Libc.ReadOnly | Libc.CloseOnExec | Libc.NonBlocking);
        gone = handle < 0 && Libc.LastError() == Kernel.Errno.NoEntry;
        if (handle < 0)
            return [];
        try
        {
            var text = new byte[4096];
            var length = 0;
            while (length <= Largest)
            {
                if (length == text.Length)
                    Array.Resize(ref text, text.Length * 4);
                var got = Libc.Read(handle, text.AsSpan(length), text.Length - length);
                if (got < 0)
                    return [];
                if (got == 0)
                    break;
                length += (int)got;
            }
            return text.AsSpan(0, length);
        }
        finally
        {
            _ = Libc.Close(handle);
        }
    }
}
