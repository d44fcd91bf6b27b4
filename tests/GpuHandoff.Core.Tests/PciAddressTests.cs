using GpuHandoff.Machines;

namespace GpuHandoff.Core.Tests;

public class PciAddressTests
{
    [Theory]
    [InlineData("0000:05:00.0", "0000:05:00.0")]
    [InlineData("05:00.1", "0000:05:00.1")]
    [InlineData("10000:e1:00.0", "10000:e1:00.0")]
    [InlineData("0A:1F.7", "0000:0a:1f.7")]
    public void An_address_is_read_with_or_without_its_domain(string text, string expected)
    {
        PciAddress.TryParse(text, out var address).ShouldBeTrue();
        address.ToString().ShouldBe(expected);
    }

    [Theory]
    [InlineData("")]
    [InlineData("05:00")]
    [InlineData("5:00.0")]
    [InlineData("05:20.0")]
    [InlineData("05:00.8")]
    [InlineData("05:00.0 ")]
    [InlineData("000:05:00.0")]
    [InlineData("0000:05:00.0.0")]
    [InlineData("ffffffff:05:00.0")]
    [InlineData("..:..")]
    public void What_is_no_address_is_not_taken_for_one(string text) =>
        PciAddress.TryParse(text, out _).ShouldBeFalse();

    [Fact]
    public void A_slot_stands_for_all_its_functions()
    {
        PciAddress.TryParseSlot("05:00", out var address, out var function).ShouldBeTrue();
        function.ShouldBeNull();
        address.Slot.ShouldBe("0000:05:00");
    }
}
