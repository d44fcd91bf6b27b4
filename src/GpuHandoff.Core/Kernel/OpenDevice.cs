using System.Collections.Immutable;
using GpuHandoff.Machines;

namespace GpuHandoff.Kernel;

/// <summary>A character device that a table of descriptors holds open.</summary>
/// <param name="Descriptors">Those that hold it, <c>/proc/4211/fd/7</c>; at most <see cref="Listed"/>, the first ones.</param>
/// <param name="Count">How many descriptors of the table hold it.</param>
public sealed record OpenDevice(ImmutableArray<string> Descriptors, DeviceNode Node, int Count)
{
    /// <summary>A process can have very many descriptors of one device, and what is kept of them is bounded.</summary>
    public const int Listed = 32;

    public string Path => Descriptors[0];

    /// <summary>The same with one more descriptor.</summary>
    public OpenDevice And(string descriptor) => this with
    {
        Descriptors = Descriptors.Length < Listed ? Descriptors.Add(descriptor) : Descriptors,
        Count = Count + 1,
    };

    /// <summary>
    /// How many open files the descriptors lead to. A driver counts open files, and a file that was duplicated or inherited
    /// (dup(2), fork(2)) has several descriptors.
    /// </summary>
    public static int Files(IEnumerable<OpenDevice> open, IKernel kernel)
    {
        var files = 0;
        foreach (var same in open.GroupBy(o => (o.Node.Major, o.Node.Minor)))
        {
            var first = new List<string>();
            foreach (var descriptor in same.SelectMany(o => o.Descriptors))
            {
                if (!first.Exists(other => kernel.IsSameFile(new(other), new(descriptor))))
                    first.Add(descriptor);
            }
            files += first.Count + same.Sum(o => o.Count - o.Descriptors.Length);
        }
        return files;
    }

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
