using System.Text.Json.Serialization;

namespace GpuHandoff.Guests;

/// <summary>Who starts and stops VMs on this host.</summary>
public enum VmManager
{
    [JsonStringEnumMemberName("proxmox")]
    Proxmox,

    [JsonStringEnumMemberName("libvirt")]
    Libvirt,
}

/// <summary>A VM, by the name that its manager knows it by: Proxmox's number, libvirt's domain name.</summary>
public sealed record Guest(VmManager Manager, string Id)
{
    const string Proxmox = "proxmox";
    const string Libvirt = "libvirt";

    /// <summary>What people call it, where that is another word. No part of who it is.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Name { get; init; }

    public bool Equals(Guest? other) => other is not null && Manager == other.Manager && Id == other.Id;

    public override int GetHashCode() => HashCode.Combine(Manager, Id);

    /// <summary>For a command line: <c>proxmox:101</c>, <c>libvirt:win11</c>. Two managers may have VMs of one name.</summary>
    public string Spelt() => $"{(Manager == VmManager.Proxmox ? Proxmox : Libvirt)}:{Id}";

    /// <summary>libvirt's names may have anything in them, so the first colon counts.</summary>
    public static Guest? Of(string spelt) => spelt.Split(':', 2) switch
    {
        [Proxmox, { Length: > 0 } id] => new(VmManager.Proxmox, id),
        [Libvirt, { Length: > 0 } id] => new(VmManager.Libvirt, id),
        _ => null,
    };

    public override string ToString() => Name is { Length: > 0 } name && name != Id ? $"VM {Id} ({name})" : $"VM {Id}";
}
