using System.Globalization;
using System.Text;

namespace GpuHandoff.Tests;

/// <summary>Spoils a text as a broken disk, a cut line, another version of a program or a joker would.</summary>
sealed class Malformed(int seed)
{
    static readonly string[] _strange =
    [
        "\0", "\n", "\n\n", " ", "\t", ",", ":", ".", "-", "{", "}", "[", "]", "\"", "null", "true", "0x", "-1", "4294967296",
        "99999999999999999999", "1e999", "ffffffffffffffff", "é", "\ud83d\ude00", "\ud800", "(null)", "../..", "0000:01:00.0", "[null]", "{}", "[]",
    ];

    readonly Random _random = new(seed);

    /// <summary>The text with one to four changes.</summary>
    public string Of(string text)
    {
        for (var changes = _random.Next(1, 5); changes > 0; changes--)
            text = Once(text);
        return text;
    }

    /// <summary>The same as bytes, now and then with some that are no UTF-8.</summary>
    public byte[] BytesOf(string text)
    {
        var bytes = Encoding.UTF8.GetBytes(Of(text));
        if (bytes.Length > 0 && Rarely(4))
            bytes[_random.Next(bytes.Length)] ^= 0x80;
        return bytes;
    }

    public T OneOf<T>(IReadOnlyList<T> items) => items[_random.Next(items.Count)];

    public bool Rarely(int oneIn) => _random.Next(oneIn) == 0;

    string Once(string text)
    {
        var (from, to) = (_random.Next(text.Length + 1), _random.Next(text.Length + 1));
        if (from > to)
            (from, to) = (to, from);
        var near = Math.Min(text.Length, from + _random.Next(1, 12));
        return _random.Next(9) switch
        {
            0 => text[..from],
            1 => text[from..],
            2 => text[..from] + text[near..],
            3 => text[..to] + text[from..],
            4 => text[..from] + OneOf(_strange) + text[from..],
            5 => text[..from] + OneOf(_strange) + text[near..],
            6 when from < text.Length => text[..from] + (char)(text[from] ^ (1 << _random.Next(8))) + text[(from + 1)..],
            7 => text[..from] + new string((char)_random.Next(1, 128), _random.Next(1, 300)) + text[from..],
            _ => text[..from] + _random.NextInt64().ToString(CultureInfo.InvariantCulture) + text[near..],
        };
    }
}
