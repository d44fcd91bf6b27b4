using System.Text.Json.Serialization;
using GpuHandoff.Guests;

namespace GpuHandoff.Machines;

/// <summary>Whom a process belongs to. At most one of unit, container and VM: that is what can be stopped in its place.</summary>
/// <param name="Unit">A systemd service, or a scope that is no login session.</param>
/// <param name="Vm">Proxmox's number, or libvirt's name.</param>
/// <param name="User">The account's name; its number where the host has no name for it.</param>
public sealed record Belonging(string? Unit = null, Container? Container = null, string? Vm = null, string? User = null)
{
    /// <summary>The login that it is part of, below its user's slice: <c>user-1000.slice/session-2.scope</c>, <c>…/user@1000.service</c>.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Session { get; init; }

    /// <summary>Whose VM it is: libvirt may call one by a number of Proxmox's, and systemd cuts libvirt's names.</summary>
    [JsonIgnore]
    public VmManager? Manager { get; init; }

    /// <summary>
    /// Whose own (rootless) container it is, by the account's number: root's programs do not know it, and its name is that
    /// user's choice. Its processes are that user's processes.
    /// </summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public uint? Rootless { get; init; }

    /// <summary>The container that root's programs can stop; null where it is a user's own, or there is none.</summary>
    public Container? RootsContainer() => Rootless is null ? Container : null;

    /// <summary>What systemd-machined makes of libvirt's names may be another domain's: those are known by QEMU's command line.</summary>
    public bool IsSurely(Guest guest) => guest.Manager == VmManager.Proxmox && Manager == VmManager.Proxmox && Vm == guest.Id;
}
