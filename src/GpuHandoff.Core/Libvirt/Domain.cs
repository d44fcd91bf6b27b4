using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Machines;

namespace GpuHandoff.Libvirt;

/// <summary>A function of the host's that a domain gets.</summary>
/// <param name="IsManaged">
/// libvirt binds it to vfio-pci itself and, only where it had to, back afterwards. What is there already it leaves alone in both
/// directions (util/virpci.c:virPCIDeviceBindToStub, virPCIDeviceUnbindFromStub). It asks nobody who uses the card, though.
/// </param>
public sealed record HostDevice(PciAddress Function, bool IsManaged);

/// <summary>libvirt's word for a VM, as far as it has functions of the host's.</summary>
public sealed record Domain(string Name, ImmutableArray<HostDevice> Devices)
{
    /// <summary>No domain is as long: a text that is, is none, and shall not fill our memory.</summary>
    public const int Longest = 5 * 1024 * 1024;

    //   <domain type='kvm' id='3'>
    //     <name>win11</name>
    //     <devices>
    //       <hostdev mode='subsystem' type='pci' managed='yes'>
    //         <driver name='vfio'/>
    //         <source>
    //           <address domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>
    //         </source>
    //         <address type='pci' domain='0x0000' bus='0x07' slot='0x00' function='0x0'/>      its place in the VM
    //       </hostdev>
    /// <summary>A domain's XML.</summary>
    /// <remarks>
    /// conf/domain_conf.c:virDomainHostdevDefParseXML. Mediated devices keep the host's driver, and an interface of type hostdev
    /// is a network card: neither is here.
    /// </remarks>
    /// <exception cref="NoDomain">It is none.</exception>
    public static Domain Parse(string xml)
    {
        if (string.IsNullOrWhiteSpace(xml))
            throw new NoDomain("there is nothing to read");
        if (xml.Length > Longest)
            throw new NoDomain($"it is longer than {Longest / 1024 / 1024} MB");
        var devices = ImmutableArray.CreateBuilder<HostDevice>();
        var name = "";
        bool? managed = null;
        var tags = new XmlTags(xml);
        for (var tag = tags.Next(); tag != XmlTag.None; tag = tags.Next())
        {
            switch (tag, tags.Open)
            {
                case (XmlTag.Opens, [var root]) when root != "domain":
                    throw new NoDomain($"it is a <{root}>, not a <domain>");
                case (XmlTag.Closes, ["domain", "name"]):
                    name = tags.Text();
                    break;
                case (XmlTag.Opens, ["domain", "devices", "hostdev"]):
                    managed = tags.Attribute("mode") is null or "subsystem" && tags.Attribute("type") == "pci"
                        ? tags.Attribute("managed") == "yes"
                        : null;
                    break;
                case (XmlTag.Opens, ["domain", "devices", "hostdev", "source", "address"]) when managed is { } isManaged:
                    devices.Add(new(Address(tags), isManaged));
                    break;
            }
        }
        return new(name, devices.ToImmutable());
    }

    /// <summary>
    /// The cards of which it gets the display function: their other functions go along by our own rule. Who gets a card's sound
    /// alone, or a virtual function in the slot of a card that stays, gets no card.
    /// </summary>
    public ImmutableArray<PciAddress> Gpus(Machine cards) =>
        [.. cards.Gpus.Select(g => g.Address).Where(gpu => Devices.Any(d => d.Function == gpu))];

    static PciAddress Address(XmlTags tags)
    {
        var (domain, bus, slot, function) = (Number("domain", int.MaxValue), Number("bus", 0xff), Number("slot", 0x1f), Number("function", 7));
        return new(domain, bus, slot, function);

        int Number(string attribute, int most) => tags.Attribute(attribute) is not { } text ? 0
            : Read(text) is { } value && value <= most ? value
            : throw new NoDomain($"a device's {attribute} is \"{text}\"");
    }

    // As strtoul(3) with base 0 (util/virxml.c:virXMLPropUInt): 0x1f, 31, 037.
    static int? Read(string text)
    {
        var (digits, hex) = text is ['0', 'x' or 'X', ..] ? (text[2..], true) : (text, false);
        if (!hex && digits is ['0', _, ..])
            return digits.All(c => c is >= '0' and <= '7') && digits.Length <= 10 ? (int)digits.Aggregate(0L, (sum, c) => (sum * 8) + (c - '0')) : null;
        return int.TryParse(digits, hex ? NumberStyles.AllowHexSpecifier : NumberStyles.None, CultureInfo.InvariantCulture, out var value) && value >= 0
            ? value : null;
    }
}
