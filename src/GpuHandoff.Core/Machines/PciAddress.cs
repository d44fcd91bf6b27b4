using System.Globalization;

namespace GpuHandoff.Machines;

/// <summary>Where a PCI function sits: <c>DDDD:BB:SS.F</c>, as sysfs names it (drivers/pci/probe.c:pci_setup_device).</summary>
public readonly record struct PciAddress(int Domain, int Bus, int Device, int Function) : IComparable<PciAddress>
{
    /// <summary>The slot without the function: <c>0000:05:00</c>.</summary>
    public string Slot => $"{Domain:x4}:{Bus:x2}:{Device:x2}";

    public bool SharesSlotWith(PciAddress other) => this with { Function = other.Function } == other;

    public override string ToString() => $"{Domain:x4}:{Bus:x2}:{Device:x2}.{Function:x}";

    public int CompareTo(PciAddress other) =>
        (Domain, Bus, Device, Function).CompareTo((other.Domain, other.Bus, other.Device, other.Function));

    /// <summary>An address with or without its domain, and with its function: <c>0000:05:00.0</c>, <c>05:00.0</c>.</summary>
    public static bool TryParse(string text, out PciAddress address) =>
        TryParseSlot(text, out address, out var function) && function is not null;

    /// <summary>An address that may stand for the whole slot: <c>0000:05:00.0</c>, <c>05:00.0</c>, <c>05:00</c>.</summary>
    /// <param name="function">The function that was written, null where none was (then the address says 0).</param>
    public static bool TryParseSlot(string text, out PciAddress address, out int? function)
    {
        address = default;
        function = null;

        var dot = text.IndexOf('.');
        if (dot >= 0)
        {
            if (text.Length != dot + 2 || !TryHex(text[(dot + 1)..], 1, 1, out var written) || written > 7)
                return false;
            function = written;
            text = text[..dot];
        }

        var parts = text.Split(':');
        var (domain, bus, device) = (0, 0, 0);
        // A domain has four digits or more (VMD controllers: 10000:e1:00.0).
        var ok = parts switch
        {
            [var d, var b, var s] => TryHex(d, 4, 8, out domain) && TryHex(b, 2, 2, out bus) && TryHex(s, 2, 2, out device),
            [var b, var s] => TryHex(b, 2, 2, out bus) && TryHex(s, 2, 2, out device),
            _ => false,
        };
        if (!ok || device > 0x1f)
            return false;
        address = new(domain, bus, device, function ?? 0);
        return true;
    }

    static bool TryHex(string text, int least, int most, out int value)
    {
        value = 0;
        return text.Length >= least && text.Length <= most
            && text.All(char.IsAsciiHexDigit)
            && int.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value)
            && value >= 0;
    }

    public static bool operator <(PciAddress left, PciAddress right) => left.CompareTo(right) < 0;
    public static bool operator >(PciAddress left, PciAddress right) => left.CompareTo(right) > 0;
    public static bool operator <=(PciAddress left, PciAddress right) => left.CompareTo(right) <= 0;
    public static bool operator >=(PciAddress left, PciAddress right) => left.CompareTo(right) >= 0;
}
