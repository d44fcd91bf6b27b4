namespace GpuHandoff.Linux;

/// <summary>Where modprobe is. By absolute path only: root trusts no PATH.</summary>
static class ModprobeProgram
{
    public const string Missing = "there is no modprobe in /usr/sbin or /sbin (Debian's package: kmod)";

    static readonly string[] _places = ["/usr/sbin/modprobe", "/sbin/modprobe"];

    public static string? Find() => _places.FirstOrDefault(File.Exists);
}
