namespace GpuHandoff.Survey;

/// <summary>A line of /proc/PID/maps that has a file behind it (fs/proc/task_mmu.c:show_map_vma).</summary>
public readonly ref struct MappedFile
{
    readonly ReadOnlySpan<char> _start;
    readonly ReadOnlySpan<char> _end;

    MappedFile(ReadOnlySpan<char> start, ReadOnlySpan<char> end, ReadOnlySpan<char> file, ReadOnlySpan<char> path)
    {
        _start = start;
        _end = end;
        File = file;
        Path = path;
    }

    /// <summary>Device, inode and path: the same text for the same file in every process.</summary>
    public ReadOnlySpan<char> File { get; }

    /// <summary>As the process sees it.</summary>
    public ReadOnlySpan<char> Path { get; }

    /// <summary>Its name in /proc/PID/map_files.</summary>
    public string Range() => $"{_start}-{_end}";

    // 7f1c8a000000-7f1c8a021000 rw-s 00000000 00:05 437                        /dev/nvidia0
    // 00400000-00401000 r-xp 00000000 fe:00 1835029                            /usr/bin/ollama
    // 7ffd5c1e3000-7ffd5c204000 rw-p 00000000 00:00 0                          [stack]
    //
    // The numbers before the path are those of the file system that the node lies in: which device is mapped only
    // map_files can tell.
    public static bool TryParse(ReadOnlySpan<char> line, out MappedFile mapped)
    {
        mapped = default;
        var rest = line;
        var range = Word(ref rest);
        _ = Word(ref rest);
        _ = Word(ref rest);
        var file = rest;
        _ = Word(ref rest);
        var inode = Word(ref rest);
        if (inode.IsEmpty || inode is "0" || range.IndexOf('-') is not (> 0 and var dash))
            return false;
        mapped = new(Number(range[..dash]), Number(range[(dash + 1)..]), file, rest.TrimStart(' '));
        return true;
    }

    static ReadOnlySpan<char> Word(scoped ref ReadOnlySpan<char> rest)
    {
        var end = rest.IndexOf(' ');
        var word = end < 0 ? rest : rest[..end];
        rest = end < 0 ? [] : rest[(end + 1)..];
        return word;
    }

    // maps fills up to eight digits, map_files takes none too many (fs/proc/base.c:dname_to_vma_addr).
    static ReadOnlySpan<char> Number(ReadOnlySpan<char> hex) => hex.TrimStart('0') is { IsEmpty: false } number ? number : "0";
}
