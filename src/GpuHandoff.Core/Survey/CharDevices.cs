using System.Globalization;

namespace GpuHandoff.Survey;

/// <summary>Reads the character majors in /proc/devices (fs/char_dev.c:chrdev_show).</summary>
public static class CharDevices
{
    // Character devices:
    // 195 nvidia
    // 234 nvidia-uvm
    //
    // Block devices:
    public static uint? Major(string text, string driver)
    {
        foreach (var line in text.Split('\n').Skip(1).TakeWhile(line => line.Length > 0))
        {
            if (line.Split(' ', StringSplitOptions.RemoveEmptyEntries) is [var major, var name]
                && name == driver
                && uint.TryParse(major, NumberStyles.None, CultureInfo.InvariantCulture, out var value))
            {
                return value;
            }
        }
        return null;
    }
}
