namespace GpuHandoff.Lab.VirtualGpu;

/// <summary>
/// An AD102 as far as nvidia.ko looks before it has firmware: it reads PMC_BOOT_1, PMC_BOOT_0 and PMC_BOOT_42 and asks no
/// more (osapi.c:rm_is_supported_device, hal_mgr.c:halmgrGetHalForGpu). The rest reads zero and forgets writes.
/// </summary>
sealed class GpuRegisters : IRegisters
{
    public ulong Read(int bar, uint offset, int length) => (bar, offset) switch
    {
        (0, 0x000) => 0x192000a1,
        (0, 0xa00) => 0x192a1000,
        _ => 0,
    };

    public void Write(int bar, uint offset, ulong value, int length)
    {
    }

    public void Reset()
    {
    }
}
