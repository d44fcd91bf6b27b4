using System.Globalization;
using System.Text;

namespace GpuHandoff.Lab.Vm;

/// <summary>What a display shows at one moment.</summary>
public sealed class LabPicture
{
    const int BytesPerPixel = 3;

    readonly byte[] pixels;

    LabPicture(int width, int height, byte[] pixels) => (Width, Height, this.pixels) = (width, height, pixels);

    public int Width { get; }

    public int Height { get; }

    // P6
    // 1280 800
    // 255
    // <width * height * 3 bytes, red green blue>                   QEMU writes no comments (ui/console.c:ppm_save)
    /// <summary>Reads a picture in the PPM format.</summary>
    /// <exception cref="FormatException">It is none, or is cut off.</exception>
    public static LabPicture Parse(ReadOnlySpan<byte> ppm)
    {
        const int words = 4;
        var (head, start) = (new string[words], 0);
        for (var i = 0; i < words; i++)
        {
            var length = ppm[start..].IndexOfAny(" \n"u8);
            if (length <= 0)
                throw new FormatException("not a picture in the PPM format");
            head[i] = Encoding.ASCII.GetString(ppm.Slice(start, length));
            start += length + 1;
        }
        if (head is not ["P6", var width, var height, "255"]
            || !int.TryParse(width, NumberStyles.None, CultureInfo.InvariantCulture, out var columns)
            || !int.TryParse(height, NumberStyles.None, CultureInfo.InvariantCulture, out var rows))
        {
            throw new FormatException($"not a picture in the PPM format that QEMU writes: {string.Join(' ', head)}");
        }
        var pixels = ppm[start..];
        return pixels.Length == columns * rows * BytesPerPixel
            ? new(columns, rows, pixels.ToArray())
            : throw new FormatException($"a picture of {columns}x{rows} with {pixels.Length} bytes");
    }

    /// <summary>Whether all of it has one colour: nobody draws on the display, or nothing.</summary>
    public bool IsBlank() => pixels.AsSpan(BytesPerPixel).SequenceEqual(pixels.AsSpan(0, pixels.Length - BytesPerPixel));

    /// <summary>The smallest rectangle that holds every pixel in which the two differ; null: they are equal.</summary>
    /// <exception cref="ArgumentException">They have not the same size.</exception>
    public (int Left, int Top, int Width, int Height)? Difference(LabPicture other)
    {
        if ((Width, Height) != (other.Width, other.Height))
            throw new ArgumentException($"{this} cannot be compared with {other}", nameof(other));
        var (left, top, right, bottom) = (Width, Height, -1, -1);
        for (var i = 0; i < pixels.Length; i += BytesPerPixel)
        {
            if (pixels.AsSpan(i, BytesPerPixel).SequenceEqual(other.pixels.AsSpan(i, BytesPerPixel)))
                continue;
            var (x, y) = (i / BytesPerPixel % Width, i / BytesPerPixel / Width);
            (left, top, right, bottom) = (Math.Min(left, x), Math.Min(top, y), Math.Max(right, x), Math.Max(bottom, y));
        }
        return right < 0 ? null : (left, top, right - left + 1, bottom - top + 1);
    }

    /// <summary>Whether the two are of one size and show the same, a cursor apart: it blinks, and may be seen in one of them only.</summary>
    public bool ShowsTheSameAs(LabPicture other)
    {
        // A character of the kernel's usual font.
        const int width = 8;
        const int height = 16;
        return (Width, Height) == (other.Width, other.Height)
            && Difference(other) is null or { Width: <= width, Height: <= height };
    }

    public override string ToString() => $"{Width}x{Height}{(IsBlank() ? ", blank" : "")}";
}
