namespace GpuHandoff.Simulation;

/// <summary>Which NVIDIA driver a simulated host has, and how.</summary>
/// <param name="Modeset">nvidia_drm's parameter as modprobe.d sets it, null: the release's default.</param>
/// <param name="Fbdev">Likewise.</param>
/// <param name="DebianNames">Files are nvidia-current-open*.ko, found under nvidia by modprobe's aliases.</param>
public sealed record DriverOption(
    string Version = "550.163.01", bool? Modeset = null, bool? Fbdev = null, bool DebianNames = false);
