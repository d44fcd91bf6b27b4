namespace GpuHandoff.Simulation;

/// <summary>
/// What the firmware left on a card's memory: a platform device with a driver (drivers/firmware/sysfb.c:sysfb_init). Once it
/// is unregistered only a boot makes another.
/// </summary>
/// <param name="Kind">What the kernel calls its frame buffer: <c>EFI VGA</c>, <c>VESA VGA</c>, <c>simple</c>, <c>simpledrmdrmfb</c>.</param>
/// <param name="IsBelow">The device is in the folder of the card; before 6.9 it is in that of all platform devices.</param>
sealed record FirmwarePicture(string Kind, PciDevice Device, bool IsBelow)
{
    public bool Bound { get; set; }

    /// <summary>The DRM card that simpledrm makes of it: /dev/dri/cardN, and no render node.</summary>
    public int? Card { get; set; }

    public bool IsDrm => Kind.EndsWith("drmfb", StringComparison.Ordinal);

    public string Driver => Kind switch
    {
        "EFI VGA" => "efi-framebuffer",
        "VESA VGA" => "vesa-framebuffer",
        _ => "simple-framebuffer",
    };

    public string Name => $"{Driver}.0";

    /// <summary>What its driver calls the memory in /proc/iomem.</summary>
    public string Claim => Kind switch
    {
        "EFI VGA" => "efifb",
        "VESA VGA" => "vesafb",
        "simple" => "simplefb",
        _ => "simpledrm",
    };
}
