using GpuHandoff.Machines;

namespace GpuHandoff.Kernel;

/// <summary>A character device that a table of descriptors holds open.</summary>
/// <param name="Path">The first descriptor that holds it: <c>/proc/4211/fd/7</c>.</param>
/// <param name="Count">How many descriptors of the table hold it.</param>
public sealed record OpenDevice(string Path, DeviceNode Node, int Count)
{
    // O_PATH, include/uapi/asm-generic/fcntl.h
    const uint OnlyAPath = 0x200000;

    // pos:	0
    // flags:	02100002
    // mnt_id:	26
    /// <summary>
    /// Whether a descriptor holds its file, by what /proc/PID/fdinfo/N says of it (fs/proc/fd.c:seq_show; flags are octal). One that
    /// was opened with O_PATH holds nothing: fs/open.c:do_dentry_open calls no driver for it, and no permission on the node is needed.
    /// </summary>
    /// <param name="fdinfo">Null or unreadable: it counts as one that holds.</param>
    public static bool Holds(string? fdinfo)
    {
        const string key = "flags:";
        foreach (var line in (fdinfo ?? "").Split('\n'))
        {
            if (!line.StartsWith(key, StringComparison.Ordinal))
                continue;
            var flags = 0u;
            foreach (var digit in line.AsSpan(key.Length).Trim())
            {
                if (digit is < '0' or > '7')
                    return true;
                flags = flags * 8 + (uint)(digit - '0');
            }
            return (flags & OnlyAPath) == 0;
        }
        return true;
    }
}
