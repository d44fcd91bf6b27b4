using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Machines;

namespace GpuHandoff.Proxmox;

/// <summary>Whether Proxmox binds and resets the functions itself.</summary>
public enum HostDriver
{
    /// <summary>It does: what is not on vfio-pci by then is bound to it, with an ID in new_id that stays.</summary>
    Vfio,

    /// <summary>It leaves them as they are (qemu-server 9.0.25 and later; an older one drops the whole line).</summary>
    Keep,
}

/// <summary>A function, or all functions of a slot, as written: Proxmox takes it as the beginning of names in sysfs.</summary>
/// <remarks>pve-common, SysFSTools.pm:lspci.</remarks>
public readonly record struct HostId(string Text)
{
    /// <summary>Whether a function is meant; where no function was written all of the slot are.</summary>
    public bool Has(PciAddress function) => WithDomain() is var id && (id.Contains('.', StringComparison.Ordinal)
        ? id == function.ToString()
        : id == function.Slot);

    // 05:00.0 stands for domain 0000.
    string WithDomain() => Text.Count(c => c == ':') == 2 ? Text : $"0000:{Text}";

    public override string ToString() => Text;

    // (?:[a-f0-9]{4,}:)?[a-f0-9]{2}:[a-f0-9]{2}(?:\.[a-f0-9])?
    internal static bool TryParse(string text, bool domainNeeded, out HostId id)
    {
        id = new(text);
        var dot = text.IndexOf('.');
        if (dot >= 0 && !(text.Length == dot + 2 && IsHex(text[^1..], 1)))
            return false;
        return (dot < 0 ? text : text[..dot]).Split(':') switch
        {
            [var domain, var bus, var device] => domain.Length >= 4 && IsHex(domain, domain.Length) && IsHex(bus, 2) && IsHex(device, 2),
            [var bus, var device] => !domainNeeded && IsHex(bus, 2) && IsHex(device, 2),
            _ => false,
        };
    }

    static bool IsHex(string text, int length) => text.Length == length && text.All(char.IsAsciiHexDigitLower);
}

/// <summary>One <c>hostpciN</c> of a VM: functions that it gets together, or the name of a mapping that chooses some.</summary>
/// <param name="Index">N.</param>
/// <param name="Host">The functions; empty where a mapping names them.</param>
/// <param name="Mapping">The mapping's ID; null where the functions are named.</param>
/// <param name="Driver">Whether Proxmox binds them itself.</param>
/// <remarks>qemu-server, PVE/QemuServer/PCI.pm: $hostpci_fmt.</remarks>
public sealed record HostPci(int Index, ImmutableArray<HostId> Host, string? Mapping, HostDriver Driver)
{
    /// <summary>How many there may be (PCI.pm: $MAX_HOSTPCI_DEVICES).</summary>
    public const int Most = 16;

    static readonly string[] _flags = ["rombar", "pcie", "x-vga", "legacy-igd"];
    static readonly string[] _ids = ["vendor-id", "device-id", "sub-vendor-id", "sub-device-id"];

    /// <summary>A mediated device: the card stays with the host's driver.</summary>
    public bool IsMediated { get; init; }

    public string Key() => $"hostpci{Index.ToString(CultureInfo.InvariantCulture)}";

    // 0000:05:00,pcie=1,x-vga=1
    // 05:00.0;05:00.1,pcie=on
    // mapping=gpu-pool,pcie=1,driver=keep
    /// <summary>The value of hostpciN.</summary>
    /// <exception cref="NotProxmox">Proxmox would not take it either: it warns, and starts the VM without the device.</exception>
    public static HostPci Parse(int index, string text)
    {
        var properties = PropertyText.Parse(text, unnamed: "host");
        foreach (var (key, value) in properties)
            Check(key, value);
        return new(
            index,
            properties.TryGetValue("host", out var host) ? Ids(host, domainNeeded: false) : [],
            properties.GetValueOrDefault("mapping"),
            properties.GetValueOrDefault("driver") == "keep" ? HostDriver.Keep : HostDriver.Vfio)
        {
            IsMediated = properties.ContainsKey("mdev"),
        };
    }

    /// <summary>What the start refuses, but not the parser; null: nothing.</summary>
    public string? WhyNoStart() => (Host, Mapping) switch
    {
        ([], null) => "neither host nor mapping is set",
        (not [], not null) => "host and mapping are both set",
        _ => null,
    };

    internal static ImmutableArray<HostId> Ids(string text, bool domainNeeded)
    {
        var ids = ImmutableArray.CreateBuilder<HostId>();
        foreach (var part in text.Split(';'))
        {
            if (!HostId.TryParse(part, domainNeeded, out var id))
                throw new NotProxmox($"\"{part}\" is no PCI ID such as 0000:05:00.0, 05:00.0 or 05:00, in small letters");
            ids.Add(id);
        }
        return ids.ToImmutable();
    }

    static void Check(string key, string value)
    {
        if (_flags.Contains(key))
        {
            _ = PropertyText.Flag(key, value);
            return;
        }
        var fine = key switch
        {
            "host" => true,
            "mapping" => IsId(value),
            "driver" => value is "vfio" or "keep",
            "mdev" => value.IndexOfAny(['/', '.', ':']) < 0,
            "romfile" => !value.Contains(';', StringComparison.Ordinal),
            _ when _ids.Contains(key) => value is ['0', 'x', _, _, _, _] && value[2..].All(char.IsAsciiHexDigit),
            _ => throw new NotProxmox($"\"{key}\" is no property of hostpci"),
        };
        if (!fine)
            throw new NotProxmox($"\"{value}\" is no {key}");
    }

    /// <summary>Whether it is an ID as Proxmox gives them: a letter, then letters, digits, - and _; two characters at least.</summary>
    /// <remarks>pve-common, JSONSchema.pm:pve_verify_configid.</remarks>
    internal static bool IsId(string text) => text is [var first, _, ..] && char.IsAsciiLetter(first)
        && text.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_');
}
