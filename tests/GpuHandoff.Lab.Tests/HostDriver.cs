namespace GpuHandoff.Lab.Tests;

/// <summary>What drives the cards of a lab host.</summary>
/// <param name="Choose">Lets <c>modprobe nvidia</c> find it, for all boots to come.</param>
/// <param name="Load">Loads it, as it is on a host at work.</param>
public sealed record HostDriver(string Choose, string Load)
{
    /// <summary>NVIDIA's own four modules.</summary>
    public static HostDriver Nvidias { get; } = new(
        "/usr/local/lib/lab/use-driver nvidia",
        "modprobe nvidia && modprobe nvidia_modeset && modprobe nvidia_drm && modprobe nvidia_uvm");

    /// <summary>The stand-in with faults to order, see lab/README.md.</summary>
    public static HostDriver StandIn { get; } = new("/usr/local/lib/lab/use-driver stand-in", "modprobe nvidia");

    /// <summary>None, on a host that has no NVIDIA card.</summary>
    public static HostDriver None { get; } = new("true", "true");
}
