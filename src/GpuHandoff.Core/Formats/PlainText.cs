using System.Text;

namespace GpuHandoff.Formats;

/// <summary>
/// Text that others chose (the output of programs, names of processes and VMs, a file's content in an error) as text that a
/// terminal, a log and the journal show and do not obey. Every door to those leads through here, so that no source needs to.
/// </summary>
/// <remarks>
/// What is shown as an escape: C0 and DEL, of which ESC begins a terminal's commands and CR overwrites a line; C1, of which some
/// terminals take U+009B for ESC [; the marks that turn the direction of what follows (UAX #9); the separators of lines and
/// paragraphs, which some viewers take for new lines.
/// </remarks>
public static class PlainText
{
    /// <summary>Of several lines: newlines stay.</summary>
    public static string Of(string text) => Escaped(text, newlines: true);

    /// <summary>As one line: a newline is an escape, too.</summary>
    public static string Line(string text) => Escaped(text, newlines: false);

    /// <summary>The lines of a message, empty ones left out. What follows the first is indented: none of it passes for a message of its own.</summary>
    public static IEnumerable<string> Lines(string text) =>
        text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select((line, number) => number == 0 ? Line(line) : $"  {Line(line)}");

    static string Escaped(string text, bool newlines)
    {
        var first = 0;
        while (first < text.Length && IsPlain(text[first], newlines))
            first++;
        // Nearly all of it is.
        if (first == text.Length)
            return text;
        var plain = new StringBuilder(text, 0, first, text.Length + 16);
        foreach (var c in text.AsSpan(first))
        {
            if (IsPlain(c, newlines))
                plain.Append(c);
            else if (c <= 0xff)
                plain.Append($"\\x{(int)c:x2}");
            else
                // In JSON it is the same character still.
                plain.Append($"\\u{(int)c:x4}");
        }
        return plain.ToString();
    }

    static bool IsPlain(char c, bool newlines) => c switch
    {
        '\n' => newlines,
        < ' ' or (>= '\x7f' and <= '\x9f') => false,
        '\u061c' or '\u200e' or '\u200f' => false,
        >= '\u2028' and <= '\u202e' => false,
        >= '\u2066' and <= '\u2069' => false,
        _ => true,
    };
}
