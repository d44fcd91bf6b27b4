using System.Globalization;
using System.Text.Json;
using FsCheck;
using FsCheck.Fluent;
using GpuHandoff.Formats;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>Whatever others put into a text, none of it is obeyed by what shows it.</summary>
public class ShowingForeignText
{
    // Every character that is one of these and could not be told by its category alone.
    static readonly string _turning = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069";

    static readonly JsonSerializerOptions _plain = new() { Encoder = Json.Plain.Options.Encoder };

    static bool IsObeyed(char c) => char.GetUnicodeCategory(c)
        is UnicodeCategory.Control or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator || _turning.Contains(c);

    /// <summary>Strings of any characters, and more often than not of those that matter.</summary>
    static readonly Arbitrary<string> _any = Arb.From(
        Gen.OneOf(Gen.Choose(0, 0xffff), Gen.Choose(0, 0x9f), Gen.Choose(0x2000, 0x206f), Gen.Elements(0x1b, 0x0d, 0x0a, 0x9b, 0x7f, 0x61c))
            .Select(code => (char)code).ListOf().Select(list => string.Concat(list)));

    static void For(Func<string, bool> holds) => Prop.ForAll(_any, text => holds(text)).Check(Config.QuickThrowOnFailure.WithMaxTest(5000));

    [Fact]
    public void No_control_character_passes_in_one_line_and_of_several_only_the_newline()
    {
        For(text => !PlainText.Line(text).Any(IsObeyed));
        For(text => !PlainText.Of(text).Any(c => c != '\n' && IsObeyed(c)));
        For(text => PlainText.Lines(text).All(line => line.Length > 0 && !line.Any(IsObeyed)));
    }

    [Fact]
    public void Every_other_character_stays_where_it_is_and_nothing_is_lost()
    {
        For(text => text.Any(IsObeyed) || PlainText.Line(text) == text);
        For(text => Back(PlainText.Line(text.Replace('\\', '/'))) == text.Replace('\\', '/'));
        For(text => PlainText.Of(text).Count(c => c == '\n') == text.Count(c => c == '\n'));
        // What is clean is left alone, so that two doors in a row do no harm.
        For(text => PlainText.Of(PlainText.Of(text)) == PlainText.Of(text));
    }

    [Fact]
    public void Data_stays_the_same_data() => For(text =>
    {
        text = string.Concat(text.Where(c => !char.IsSurrogate(c)));
        var json = PlainText.Of(JsonSerializer.Serialize(text, _plain));
        return JsonSerializer.Deserialize<string>(json) == text;
    });

    [Theory]
    [InlineData("\e[2J", @"\x1b[2J")]
    [InlineData("done\rfailed", @"done\x0dfailed")]
    [InlineData("\u009b2J\u007f", @"\x9b2J\x7f")]
    [InlineData("a\u202eb\u2069\u2028", @"a\u202eb\u2069\u2028")]
    [InlineData("VM 101 (Wïn 11 → …)", "VM 101 (Wïn 11 → …)")]
    public void An_escape_says_which_character_it_was(string text, string shown) => PlainText.Line(text).ShouldBe(shown);

    [Fact]
    public void What_follows_the_first_line_of_a_program_cannot_pass_for_a_line_of_ours() =>
        PlainText.Lines("exit code 1: no\n\n[gpu-handoff] done\n").ShouldBe(["exit code 1: no", "  [gpu-handoff] done"]);

    static string Back(string shown) => System.Text.RegularExpressions.Regex.Replace(
        shown, @"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})", m => ((char)Convert.ToInt32(m.Groups[1].Success ? m.Groups[1].Value : m.Groups[2].Value, 16)).ToString());
}
