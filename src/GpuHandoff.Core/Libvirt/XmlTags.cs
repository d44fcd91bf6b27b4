using System.Globalization;
using System.Text;

namespace GpuHandoff.Libvirt;

/// <summary>What stands at this place of the text.</summary>
enum XmlTag
{
    Opens,

    /// <summary>Of an empty one (<c>&lt;name/&gt;</c>), too, after it has opened.</summary>
    Closes,

    /// <summary>The text is at its end, and every tag is closed.</summary>
    None,
}

/// <summary>
/// The tags of an XML text one after the other, with their attributes: as much of XML as libvirt writes. No document type, so
/// that nothing can be made to grow, and nothing is fetched.
/// </summary>
/// <remarks>System.Xml would take 6 MB of the native binary, see docs/decisions/0021-reading-xml.md.</remarks>
sealed class XmlTags(string text)
{
    /// <summary>How many tags may be open. A domain needs a dozen; what people put into its metadata is theirs.</summary>
    const int Deepest = 256;

    /// <summary>How many attributes one may have.</summary>
    const int Most = 256;

    readonly List<string> _open = [];
    readonly List<(string Name, string Value)> _attributes = [];
    readonly StringBuilder _text = new();
    int _at;
    bool _closes;
    bool _isEmpty;
    bool _hadRoot;

    /// <summary>The names from the outermost tag to this one.</summary>
    public IReadOnlyList<string> Open => _open;

    /// <summary>Where a tag closes: what stood before it, behind the last tag.</summary>
    public string Text() => _text.ToString();

    /// <summary>An attribute of the tag that opens; null: it has none of that name.</summary>
    public string? Attribute(string name)
    {
        foreach (var attribute in _attributes)
        {
            if (attribute.Name == name)
                return attribute.Value;
        }
        return null;
    }

    /// <summary>Goes to the next tag.</summary>
    /// <exception cref="NoDomain">It is no XML, or more than libvirt writes.</exception>
    public XmlTag Next()
    {
        if (_closes)
            _open.RemoveAt(_open.Count - 1);
        _closes = false;
        if (_isEmpty)
            return Close();
        _text.Clear();
        while (true)
        {
            Words();
            if (_at == text.Length)
                return End();
            if (Skips("<!--", "-->") || Skips("<?", "?>"))
                continue;
            if (Is("<![CDATA["))
            {
                var from = _at + "<![CDATA[".Length;
                _at = from;
                var to = Find("]]>");
                Say(text[from..to]);
                _at = to + "]]>".Length;
                continue;
            }
            if (Is("<!"))
                throw Wrong("a document type or another declaration, which libvirt never writes");
            _at++;
            if (_at < text.Length && text[_at] == '/')
                return ClosingTag();
            return OpeningTag();
        }
    }

    /// <summary>What is said between two tags.</summary>
    void Words()
    {
        var end = text.IndexOf('<', _at);
        if (end < 0)
            end = text.Length;
        if (end > _at)
            Say(Plain(text.AsSpan(_at, end - _at)));
        _at = end;
    }

    void Say(string words)
    {
        if (_open.Count > 0)
            _text.Append(words);
        // U+FEFF is the mark that some write before everything else.
        else if (!string.IsNullOrWhiteSpace(_hadRoot ? words : words.TrimStart('\ufeff')))
            throw Wrong("words outside of the outermost tag");
    }

    XmlTag End()
    {
        if (_open.Count > 0)
            throw Wrong($"the text ends within <{_open[^1]}>");
        return _hadRoot ? XmlTag.None : throw Wrong("no tag at all");
    }

    XmlTag Close()
    {
        _isEmpty = false;
        _closes = true;
        _text.Clear();
        return XmlTag.Closes;
    }

    XmlTag ClosingTag()
    {
        _at++;
        var name = Name();
        Blanks();
        Take('>');
        if (_open.Count == 0 || _open[^1] != name)
            throw Wrong($"</{name}> closes nothing");
        _closes = true;
        return XmlTag.Closes;
    }

    XmlTag OpeningTag()
    {
        var name = Name();
        if (_open.Count == 0 && _hadRoot)
            throw Wrong("a second outermost tag");
        if (_open.Count == Deepest)
            throw Wrong($"more than {Deepest} tags within each other");
        _hadRoot = true;
        _open.Add(name);
        _attributes.Clear();
        while (true)
        {
            var apart = Blanks();
            if (_at == text.Length)
                throw Wrong($"the text ends within <{name}>");
            switch (text[_at])
            {
                case '>':
                    _at++;
                    return XmlTag.Opens;
                case '/':
                    _at++;
                    Take('>');
                    _isEmpty = true;
                    return XmlTag.Opens;
                default:
                    if (!apart)
                        throw Wrong($"no blank before an attribute of <{name}>");
                    AddAttribute();
                    break;
            }
        }
    }

    void AddAttribute()
    {
        var name = Name();
        Blanks();
        Take('=');
        Blanks();
        if (_at == text.Length || text[_at] is not ('"' or '\''))
            throw Wrong($"{name} has no value in quotes");
        var quote = text[_at++];
        var end = text.IndexOf(quote, _at);
        if (end < 0)
            throw Wrong($"the value of {name} does not end");
        var value = text.AsSpan(_at, end - _at);
        if (value.Contains('<'))
            throw Wrong($"the value of {name} has a < in it");
        if (Attribute(name) is not null)
            throw Wrong($"{name} is there twice");
        if (_attributes.Count == Most)
            throw Wrong($"a tag with more than {Most} attributes");
        _attributes.Add((name, Plain(value)));
        _at = end + 1;
    }

    string Name()
    {
        var from = _at;
        while (_at < text.Length && (char.IsLetterOrDigit(text[_at]) || text[_at] is '_' or ':' or '-' or '.'))
            _at++;
        return _at > from && text[from] is not ('-' or '.') && !char.IsDigit(text[from])
            ? text[from.._at]
            : throw Wrong("no name where one must be");
    }

    bool Blanks()
    {
        var from = _at;
        while (_at < text.Length && text[_at] is ' ' or '\t' or '\n' or '\r')
            _at++;
        return _at > from;
    }

    void Take(char wanted)
    {
        if (_at == text.Length || text[_at] != wanted)
            throw Wrong($"no {wanted} where one must be");
        _at++;
    }

    bool Is(string what) => string.CompareOrdinal(text, _at, what, 0, what.Length) == 0;

    bool Skips(string begin, string end)
    {
        if (!Is(begin))
            return false;
        _at += begin.Length;
        _at = Find(end) + end.Length;
        return true;
    }

    int Find(string end) => text.IndexOf(end, _at, StringComparison.Ordinal) is >= 0 and var at ? at : throw Wrong($"no {end} where one must be");

    // &lt; &gt; &amp; &quot; &apos; &#10; &#xa; and no other: there is no document type that could define one.
    string Plain(ReadOnlySpan<char> written)
    {
        if (!written.Contains('&'))
            return written.ToString();
        var plain = new StringBuilder(written.Length);
        while (written.IndexOf('&') is >= 0 and var at)
        {
            plain.Append(written[..at]);
            written = written[(at + 1)..];
            var end = written.IndexOf(';');
            if (end < 0)
                throw Wrong("an & that begins nothing");
            plain.Append(Meant(written[..end]));
            written = written[(end + 1)..];
        }
        return plain.Append(written).ToString();
    }

    string Meant(ReadOnlySpan<char> reference) => reference switch
    {
        "lt" => "<",
        "gt" => ">",
        "amp" => "&",
        "quot" => "\"",
        "apos" => "'",
        ['#', 'x', .. var hex] when Number(hex, NumberStyles.AllowHexSpecifier) is { } sign => sign,
        ['#', .. var number] when Number(number, NumberStyles.None) is { } sign => sign,
        _ => throw Wrong($"&{Shortened(reference)}; means nothing"),
    };

    static string? Number(ReadOnlySpan<char> digits, NumberStyles style) =>
        int.TryParse(digits, style, CultureInfo.InvariantCulture, out var code) && Rune.IsValid(code) ? new Rune(code).ToString() : null;

    static string Shortened(ReadOnlySpan<char> words) => words.Length <= 20 ? words.ToString() : $"{words[..20]}…";

    NoDomain Wrong(string what) => new($"line {text.AsSpan(0, _at).Count('\n') + 1}: {what}");
}
