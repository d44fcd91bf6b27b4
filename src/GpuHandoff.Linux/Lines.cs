using System.Buffers;
using System.Text;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>Reads a file of the kernel's piece by piece: what it needs is the longest line, whatever the file's size.</summary>
static class Lines
{
    // A page at a time is what seq_file gives (fs/seq_file.c:seq_read_iter); a path has 4096 bytes at most, each of them maybe escaped.
    const int Piece = 64 * 1024;

    // 160,000 ordinary lines of /proc/PID/maps: more than a process may have mappings by default.
    const long Most = 16 * 1024 * 1024;

    /// <summary>Reads the lines of a file; one that is not there has none.</summary>
    /// <returns>False: it was given up on the way, or is longer than what is looked at.</returns>
    public static bool Read(SysPath file, OfLine line, Looking looking)
    {
        var handle = Libc.Open(file.Text, Libc.ReadOnly | Libc.CloseOnExec | Libc.NonBlocking);
        if (handle < 0)
            return true;
        var bytes = ArrayPool<byte>.Shared.Rent(Piece);
        var chars = ArrayPool<char>.Shared.Rent(Piece);
        try
        {
            var (kept, all) = (0, 0L);
            while (true)
            {
                if (looking.IsGivenUp || all > Most)
                    return false;
                var got = (int)Libc.Read(handle, bytes.AsSpan(kept, Piece - kept), Piece - kept);
                // One that ends while it is read has no mappings any more.
                if (got <= 0)
                    return true;
                looking.Proceeds();
                (kept, all) = (kept + got, all + got);
                var rest = bytes.AsSpan(0, kept);
                while (rest.IndexOf((byte)'\n') is >= 0 and var end)
                {
                    line(chars.AsSpan(0, Encoding.UTF8.GetChars(rest[..end], chars)));
                    rest = rest[(end + 1)..];
                }
                // A line that fills the whole buffer is none of the kernel's.
                kept = rest.Length == Piece ? 0 : rest.Length;
                rest[..kept].CopyTo(bytes);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(bytes);
            ArrayPool<char>.Shared.Return(chars);
            _ = Libc.Close(handle);
        }
    }
}
