using System.Globalization;
using GpuHandoff.Kernel;

namespace GpuHandoff.Proxmox;

/// <summary>Debian's list of what is installed: asked of the file, because pveversion takes a second.</summary>
static class DpkgStatus
{
    public static SysPath File { get; } = new("/var/lib/dpkg/status");

    // Package: qemu-server
    // Status: install ok installed
    // Version: 9.0.25-1~bpo
    /// <summary>The numbers of an installed package's version; null: it is not installed.</summary>
    public static Version? VersionOf(string package, string text)
    {
        var (isIt, isInstalled) = (false, false);
        foreach (var line in text.EnumerateLines())
        {
            if (line.IsEmpty)
                (isIt, isInstalled) = (false, false);
            else if (line.StartsWith("Package: "))
                isIt = line["Package: ".Length..].SequenceEqual(package);
            else if (isIt && line.StartsWith("Status: "))
                isInstalled = line.EndsWith(" installed");
            else if (isIt && isInstalled && line.StartsWith("Version: "))
                return Numbers(line["Version: ".Length..]);
        }
        return null;
    }

    // 9.0.25         8.4.10+deb13u1          1:9.0.25-2
    static Version? Numbers(ReadOnlySpan<char> text)
    {
        var parts = new List<int>();
        var epoch = text.IndexOf(':');
        foreach (var part in text[(epoch + 1)..].ToString().Split('.'))
        {
            var digits = part.AsSpan()[..(part.AsSpan().IndexOfAnyExceptInRange('0', '9') is >= 0 and var end ? end : part.Length)];
            if (!int.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out var number))
                break;
            parts.Add(number);
            if (digits.Length < part.Length)
                break;
        }
        return parts is [var major, var minor, ..] ? new(major, minor, parts.ElementAtOrDefault(2)) : null;
    }
}
