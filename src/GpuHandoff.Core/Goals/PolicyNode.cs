using System.Collections.Immutable;
using YamlDotNet.Core;
using YamlDotNet.Core.Events;

namespace GpuHandoff.Goals;

/// <summary>What a policy file may hold: text, a list or a map, each with the place where it stands.</summary>
/// <param name="Text">The text, a map's and a list's empty.</param>
/// <param name="Plain">Not in quotes, so that it may be a number or a truth.</param>
sealed record PolicyNode(int Line, int Column, string Text, bool Plain)
{
    /// <summary>Null: it is no map.</summary>
    public ImmutableArray<(PolicyNode Key, PolicyNode Value)>? Map { get; init; }

    /// <summary>Null: it is no list.</summary>
    public ImmutableArray<PolicyNode>? List { get; init; }

    /// <summary>A key with nothing behind it: all that stood below it may be commented out.</summary>
    public bool IsNothing() => Map is null && List is null && Plain && Text is "" or "~" or "null";

    /// <summary>As a message quotes it.</summary>
    public string Say() => Map is not null ? "a map" : List is not null ? "a list"
        : IsNothing() ? "nothing" : $"\"{(Text.Length <= 60 ? Text : Text[..60] + "…")}\"".ReplaceLineEndings("↵");

    /// <summary>
    /// Reads the one document of a file; null where there is none but comments.
    /// Built from the parser's events and not from its ready-made tree: an alias, a tag or a deep nest is refused where it
    /// begins, so no file can make us build more than its own length.
    /// </summary>
    public static PolicyNode? Read(string text, string file, ImmutableArray<PolicyError>.Builder errors)
    {
        // What the parser has reached, for the one that gives up without a word about where.
        var at = Mark.Empty;
        try
        {
            var parser = new Parser(new StringReader(text));
            PolicyNode? root = null;
            var documents = 0;
            while (parser.MoveNext())
            {
                at = parser.Current!.Start;
                switch (parser.Current)
                {
                    case DocumentStart when ++documents > 1:
                        errors.Add(new(file, at, "a second document begins here", "one file has one document: take out the ---, or make a file of its own"));
                        return null;
                    case StreamStart or StreamEnd or DocumentStart or DocumentEnd:
                        break;
                    default:
                        root = Node(parser, depth: 0, ref at);
                        break;
                }
            }
            return root is null || root.IsNothing() ? null : root;
        }
        catch (NotAllowed no)
        {
            errors.Add(new(file, no.At, no.Message, no.Hint));
        }
        catch (YamlException e)
        {
            errors.Add(new(file, e.Start.Line > 0 ? e.Start : at, $"this is no YAML: {OneLine(e.Message)}", "indent by spaces, write \"key: value\", and put text with : # [ ] { } in quotes"));
        }
        // The parser of the library throws whatever comes up on some kinds of nonsense (an escape beyond Unicode): a file of the
        // user's is never a crash.
        catch (Exception e) when (e is ArgumentException or InvalidOperationException or FormatException or OverflowException
            or IndexOutOfRangeException or KeyNotFoundException or InvalidCastException or NullReferenceException)
        {
            errors.Add(new(file, at, $"this is no YAML: {OneLine(e.Message)}", "look at this line and the next ones"));
        }
        return null;
    }

    // Three levels below a card are all that any key needs.
    const int Deepest = 8;

    static PolicyNode Node(Parser parser, int depth, ref Mark at)
    {
        var begin = parser.Current!;
        at = begin.Start;
        if (begin is AnchorAlias || begin is NodeEvent { Anchor.IsEmpty: false })
            throw new NotAllowed(begin.Start, "anchors and aliases (& and *) are not taken", "write the value out where it is needed");
        if (begin is NodeEvent { Tag.IsEmpty: false })
            throw new NotAllowed(begin.Start, "tags (!) are not taken", "leave the tag out");
        if (depth > Deepest)
            throw new NotAllowed(begin.Start, "this is nested too deeply", "gpu-handoff policy show prints a policy in the right form");
        switch (begin)
        {
            case Scalar scalar:
                return new((int)scalar.Start.Line, (int)scalar.Start.Column, scalar.Value, scalar.Style is ScalarStyle.Plain);
            case SequenceStart:
                var items = ImmutableArray.CreateBuilder<PolicyNode>();
                while (parser.MoveNext() && parser.Current is not SequenceEnd)
                    items.Add(Node(parser, depth + 1, ref at));
                return new((int)begin.Start.Line, (int)begin.Start.Column, "", Plain: true) { List = items.ToImmutable() };
            case MappingStart:
                var pairs = ImmutableArray.CreateBuilder<(PolicyNode, PolicyNode)>();
                while (parser.MoveNext() && parser.Current is not MappingEnd)
                {
                    var key = Node(parser, depth + 1, ref at);
                    if (!parser.MoveNext())
                        break;
                    pairs.Add((key, Node(parser, depth + 1, ref at)));
                }
                return new((int)begin.Start.Line, (int)begin.Start.Column, "", Plain: true) { Map = pairs.ToImmutable() };
            default:
                throw new NotAllowed(begin.Start, "this is no value", "write \"key: value\"");
        }
    }

    static string OneLine(string text) => text.ReplaceLineEndings(" ").Trim().TrimEnd('.');

    sealed class NotAllowed(Mark at, string what, string hint) : Exception(what)
    {
        public Mark At { get; } = at;

        public string Hint { get; } = hint;
    }
}
