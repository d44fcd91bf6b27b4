using System.Text;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>What a path leads to. Entries are made when they are looked at, so they always tell the present state.</summary>
abstract record Entry;

sealed record Folder(Func<IEnumerable<(string Name, Entry Entry)>> Children) : Entry
{
    public Entry? Find(string name)
    {
        foreach (var (child, entry) in Children())
        {
            if (child == name)
                return entry;
        }
        return null;
    }
}

/// <summary>A text file. No <paramref name="Write"/>: nobody taught the simulator what a write to it does.</summary>
record TextFile(Func<string?> Read, Action<string>? Write = null) : Entry
{
    /// <summary>The content where it is no text.</summary>
    public Func<byte[]?>? Bytes { get; init; }

    public byte[]? First(int count)
    {
        var content = Bytes is null ? Read() is { } text ? Encoding.UTF8.GetBytes(text) : null : Bytes();
        return content?.Length > count ? content[..count] : content;
    }
}

/// <summary>One of <see cref="PlainFiles"/>, which has an inode.</summary>
sealed record FileOnDisk(string Text, FileIdentity Identity) : TextFile(() => Text);

sealed record LinkTo(string Target) : Entry;

sealed record NodeFile(DeviceNode Node) : Entry;

/// <summary>
/// /proc/PID/fd/N: it reads like a link and opens like the file itself, whatever the path says by now or in whichever
/// mount namespace it was true (fs/proc/base.c:proc_pid_get_link).
/// </summary>
sealed record HeldFile(string Target, DeviceNode? Node) : Entry;
