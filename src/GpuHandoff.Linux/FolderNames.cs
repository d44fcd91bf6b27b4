using System.Buffers.Binary;
using System.Text;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>The names in a folder and nothing else: .NET's own way asks for two more words of each that is a link.</summary>
static class FolderNames
{
    /// <summary>In no order; null where the folder cannot be listed to its end, and the last error tells why.</summary>
    public static List<string>? In(string folder)
    {
        var handle = Libc.Open(folder, Libc.ReadOnly | Libc.CloseOnExec | Libc.Folder);
        if (handle < 0)
            return null;
        try
        {
            var names = new List<string>();
            nint got;
            Span<byte> buffer = stackalloc byte[8192];
            while ((got = Libc.GetDents(handle, buffer, buffer.Length)) > 0)
            {
                for (var rest = buffer[..(int)got]; rest.Length > 0; rest = rest[BinaryPrimitives.ReadUInt16LittleEndian(rest[Libc.DirentLength..])..])
                {
                    var name = rest[Libc.DirentName..];
                    name = name[..name.IndexOf((byte)0)];
                    if (!name.SequenceEqual("."u8) && !name.SequenceEqual(".."u8))
                        names.Add(Encoding.UTF8.GetString(name));
                }
            }
            return got == 0 ? names : null;
        }
        finally
        {
            _ = Libc.Close(handle);
        }
    }
}
