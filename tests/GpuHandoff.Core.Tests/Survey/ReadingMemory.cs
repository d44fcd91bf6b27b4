using FsCheck.Xunit;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Survey;

public class ReadingMemory
{
    [Fact]
    public void The_firmwares_picture_is_found_in_the_window_of_its_card()
    {
        IoMemory.Pictures("""
            00001000-0009ffff : System RAM
            4000000000-4fffffffff : PCI Bus 0000:01
              4000000000-400fffffff : 0000:01:00.0
                4000000000-40007e8fff : BOOTFB
                  4000000000-40007e8fff : simpledrm
              4010000000-4011ffffff : 0000:01:00.0
            5000000000-5000ffffff : efi-framebuffer.0
            """).ShouldBe([
            new(0x4000000000, "BOOTFB", new PciAddress(0, 1, 0, 0)), new(0x4000000000, "simpledrm", new PciAddress(0, 1, 0, 0)),
            new(0x5000000000, "efi-framebuffer.0", null)]);
    }

    [Fact]
    public void Who_is_not_root_sees_zeros_and_the_nesting_still_tells() =>
        IoMemory.Pictures("""
            00000000-00000000 : PCI Bus 0000:00
              00000000-00000000 : 0000:00:02.0
              00000000-00000000 : 0000:01:00.0
                00000000-00000000 : vesafb
            """).ShouldBe([new(0, "vesafb", new PciAddress(0, 1, 0, 0))]);

    [Property]
    public void Any_text_is_read(string text) => IoMemory.Pictures(text ?? "");
}
