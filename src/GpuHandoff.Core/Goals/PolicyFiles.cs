using System.Buffers;
using System.Collections.Immutable;
using System.Text.Unicode;

namespace GpuHandoff.Goals;

/// <summary>A policy file as it is on disk.</summary>
public sealed record PolicyText(string File, ReadOnlyMemory<byte> Bytes);

/// <summary>From files to what they say, or to all that is wrong with them. Pure: whoever calls this has read them.</summary>
public static class PolicyFiles
{
    /// <summary>Nobody writes so much policy, and a stranger's file must not fill our memory.</summary>
    public const int Longest = 256 * 1024;

    /// <summary>Reads files in their order: what a later one says goes before what an earlier one does.</summary>
    public static (PolicySet Said, ImmutableArray<PolicyError> Errors) Read(IEnumerable<PolicyText> files)
    {
        var (said, errors) = (PolicySet.Default, ImmutableArray.CreateBuilder<PolicyError>());
        foreach (var file in files)
        {
            if (Text(file, errors) is { } text && PolicyNode.Read(text, file.File, errors) is { } root)
                said = new PolicyFile(file.File, errors).Read(root, said);
        }
        return (said, errors.ToImmutable());
    }

    /// <summary>The text, where it is one that every reader sees in the same way; else null, and an error.</summary>
    static string? Text(PolicyText file, ImmutableArray<PolicyError>.Builder errors)
    {
        if (file.Bytes.Length > Longest)
        {
            errors.Add(new(file.File, 0, 0, $"the file has more than {Longest / 1024} KiB", "a policy has a few lines: take out what is none of it"));
            return null;
        }
        var bytes = file.Bytes.Span;
        if (bytes is [0xef, 0xbb, 0xbf, .. var rest])
            bytes = rest;
        var characters = new char[bytes.Length];
        if (Utf8.ToUtf16(bytes, characters, out var read, out var written, replaceInvalidSequences: false) != OperationStatus.Done)
        {
            Wrong("this is no UTF-8", bytes[..read].Count((byte)'\n') + 1, read - bytes[..read].LastIndexOf((byte)'\n'), "save the file as UTF-8");
            return null;
        }
        var text = new string(characters, 0, written);
        var number = 0;
        foreach (var line in text.Split('\n'))
        {
            number++;
            // A zero ends the text for YAML's reader, and all that follows would silently not count.
            var strange = line.AsSpan().TrimEnd('\r').IndexOfAny(_strange);
            if (strange >= 0)
            {
                Wrong($"there is a control character (0x{(int)line[strange]:x2})", number, strange + 1, "take it out");
                return null;
            }
            var indent = line.AsSpan(0, line.Length - line.AsSpan().TrimStart().Length);
            if (indent.Contains('\t') && line.Trim() is not ("" or ['#', ..]))
            {
                Wrong("a tab indents this line", number, indent.IndexOf('\t') + 1, "indent with spaces: YAML knows no tabs there");
                return null;
            }
        }
        return text;

        void Wrong(string what, int line, int column, string hint) => errors.Add(new(file.File, line, column, what, hint));
    }

    static readonly SearchValues<char> _strange =
        SearchValues.Create([.. Enumerable.Range(0, 0x20).Select(c => (char)c).Where(c => c != '\t'), '\u007f', '\u0085', '\u2028', '\u2029', '\ufeff']);
}
