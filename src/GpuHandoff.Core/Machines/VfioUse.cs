namespace GpuHandoff.Machines;

/// <summary>How many devices of vfio-pci are open, and how many of them processes show.</summary>
/// <param name="Open">
/// The module's count: vfio takes one reference for each device that is open, from the first open to the end of the last
/// close, the resets in it included (vfio_main.c:vfio_df_device_first_open, vfio_df_device_last_close).
/// </param>
/// <param name="Shown">At most so many do visible processes have open, whichever card they belong to.</param>
public sealed record VfioUse(int Open, int Shown)
{
    /// <summary>Open devices whose user nobody sees: a VM that is just ending, or a descriptor in flight.</summary>
    public int Hidden() => Math.Max(0, Open - Shown);
}
