using System.Globalization;

namespace GpuHandoff.Machines;

/// <summary>An NVIDIA driver release: <c>580.126.20</c>.</summary>
public readonly record struct DriverVersion(int Major, int Minor, int Patch) : IComparable<DriverVersion>
{
    /// <summary>
    /// Whether nvidia_drm follows a single GPU's unbind and bind. Before, it keeps a usage count (modeset=1: the unbind
    /// never ends) or an orphaned DRM card (modeset=0), so it must be unloaded first.
    /// </summary>
    /// <remarks>nvidia/nv-pci.c:nv_pci_remove calls nvidia_modeset_remove from 580.94.18, 580.105.08 and 590.44.01 on.</remarks>
    public bool DrmFollowsUnbind() => this switch
    {
        { Major: 580, Minor: 94 } => this >= new DriverVersion(580, 94, 18),
        { Major: 590 } => this >= new DriverVersion(590, 44, 1),
        { Major: < 590 } => this >= new DriverVersion(580, 105, 8),
        { Major: 595 } => this >= new DriverVersion(595, 44, 2),
        _ => true,
    };

    public static bool TryParse(string text, out DriverVersion version)
    {
        version = default;
        var parts = text.Split('.');
        if (parts.Length is not (2 or 3) || !Number(parts[0], out var major) || !Number(parts[1], out var minor))
            return false;
        var patch = 0;
        if (parts.Length == 3 && !Number(parts[2], out patch))
            return false;
        version = new(major, minor, patch);
        return true;
    }

    static bool Number(string text, out int value) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out value);

    public int CompareTo(DriverVersion other) => (Major, Minor, Patch).CompareTo((other.Major, other.Minor, other.Patch));

    public override string ToString() => Patch == 0 ? $"{Major}.{Minor:00}" : $"{Major}.{Minor}.{Patch:00}";

    public static bool operator <(DriverVersion left, DriverVersion right) => left.CompareTo(right) < 0;
    public static bool operator >(DriverVersion left, DriverVersion right) => left.CompareTo(right) > 0;
    public static bool operator <=(DriverVersion left, DriverVersion right) => left.CompareTo(right) <= 0;
    public static bool operator >=(DriverVersion left, DriverVersion right) => left.CompareTo(right) >= 0;
}
