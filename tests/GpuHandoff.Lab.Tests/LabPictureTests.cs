using System.Text;

namespace GpuHandoff.Lab.Tests;

/// <summary>What the cases with a console go by.</summary>
public sealed class LabPictureTests
{
    [Fact]
    public void A_picture_of_one_colour_is_blank_whichever_it_is()
    {
        Picture(4, 2, (_, _) => 0).IsBlank().ShouldBeTrue();
        Picture(4, 2, (_, _) => 170).IsBlank().ShouldBeTrue();
        Picture(4, 2, (x, y) => (x, y) == (3, 1) ? (byte)1 : (byte)0).IsBlank().ShouldBeFalse();
    }

    [Fact]
    public void Two_pictures_differ_in_the_rectangle_that_holds_every_other_pixel()
    {
        var one = Picture(40, 40, (_, _) => 0);
        one.Difference(Picture(40, 40, (_, _) => 0)).ShouldBeNull();
        one.Difference(Picture(40, 40, (x, y) => (x, y) is (3, 20) or (9, 4) ? (byte)170 : (byte)0)).ShouldBe((3, 4, 7, 17));
        Should.Throw<ArgumentException>(() => one.Difference(Picture(40, 41, (_, _) => 0)));
    }

    [Fact]
    public void A_cursor_is_no_difference_and_two_letters_are_one()
    {
        var empty = Picture(80, 80, (_, _) => 0);
        var cursor = Picture(80, 80, (x, y) => x is >= 8 and < 16 && y is 30 or 31 ? (byte)170 : (byte)0);
        empty.ShowsTheSameAs(cursor).ShouldBeTrue();
        empty.ShowsTheSameAs(Picture(80, 80, (x, y) => y == 5 && x is 7 or 17 ? (byte)170 : (byte)0)).ShouldBeFalse();
        empty.ShowsTheSameAs(Picture(80, 81, (_, _) => 0)).ShouldBeFalse();
    }

    [Theory]
    [InlineData("")]
    [InlineData("P6\n")]
    [InlineData("P5\n1 1\n255\nabc")]
    [InlineData("P6\n1 1\n255\nab")]
    [InlineData("P6\n1 1\n65535\nabc")]
    [InlineData("P6\n-1 1\n255\nabc")]
    public void What_is_no_picture_says_so(string text) =>
        Should.Throw<FormatException>(() => LabPicture.Parse(Encoding.Latin1.GetBytes(text)));

    static LabPicture Picture(int width, int height, Func<int, int, byte> grey)
    {
        var head = Encoding.ASCII.GetBytes($"P6\n{width} {height}\n255\n");
        return LabPicture.Parse([
            .. head,
            .. from y in Enumerable.Range(0, height)
               from x in Enumerable.Range(0, width)
               from colour in Enumerable.Repeat(grey(x, y), 3)
               select colour,
        ]);
    }
}
