using System.Globalization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Proxmox;

/// <summary>Which qemu-server is installed: some of what a configuration may say came late.</summary>
static class DebianVersion
{
    const string DpkgQuery = "/usr/bin/dpkg-query";

    /// <summary>driver=keep (qemu-server, debian/changelog).</summary>
    public static Version KnowsKeep { get; } = new(9, 0, 25);

    /// <summary>Null: nobody could tell. Asked only where something hangs on it, since it starts a program.</summary>
    public static Version? OfQemuServer(IKernel kernel)
    {
        try
        {
            var (exit, output) = kernel.RunProgram(DpkgQuery, ["-W", "-f", "${Version}", "qemu-server"], Limits.Default.Program);
            return exit == 0 ? Parse(output) : null;
        }
        catch (Exception refused) when (refused is KernelRefused or KernelSilent)
        {
            return null;
        }
    }

    // 9.0.25          8.4.10          9.1.13~bpo12+1
    public static Version? Parse(string text)
    {
        var numbers = text.Trim().TakeWhile(c => char.IsAsciiDigit(c) || c == '.').ToArray();
        return new string(numbers).TrimEnd('.').Split('.') is [var major, var minor, .. var rest]
            && TryNumber(major, out var first) && TryNumber(minor, out var second) && TryNumber(rest is [var last, ..] ? last : "0", out var third)
                ? new(first, second, third)
                : null;
    }

    static bool TryNumber(string text, out int number) => int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);
}
