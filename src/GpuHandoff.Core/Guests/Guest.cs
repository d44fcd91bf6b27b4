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
    /// <summary>What people call it, where that is another word. No part of who it is.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Name { get; init; }

    public bool Equals(Guest? other) => other is not null && Manager == other.Manager && Id == other.Id;

    public override int GetHashCode() => HashCode.Combine(Manager, Id);

    public override string ToString() => Name is { Length: > 0 } name && name != Id ? $"VM {Id} ({name})" : $"VM {Id}";
}
