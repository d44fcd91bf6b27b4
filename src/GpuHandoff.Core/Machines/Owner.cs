namespace GpuHandoff.Machines;

/// <summary>The driver that a function has, and the only one that it would accept (null: any).</summary>
/// <param name="Only">The driver override. The kernel does not check that such a driver exists.</param>
public sealed record Owner(string? Driver, string? Only = null)
{
    public const string Vfio = "vfio-pci";

    /// <summary>On vfio-pci, and kept there: no modprobe, udev rule or rescan takes it in a driverless moment.</summary>
    public static Owner VfioKept { get; } = new(Vfio, Vfio);

    public override string ToString() => Driver ?? "no driver";
}
