using System.Text.Json.Serialization;

namespace GpuHandoff.Machines;

/// <summary>Whose container it is: each has its own program that stops and starts it.</summary>
public enum ContainerKind
{
    [JsonStringEnumMemberName("lxc")]
    Lxc,

    [JsonStringEnumMemberName("docker")]
    Docker,

    [JsonStringEnumMemberName("podman")]
    Podman,
}

/// <summary>A container, by the name that its manager takes.</summary>
/// <param name="Id">Proxmox's number or LXC's name; of Docker and Podman the first 12 digits, as their lists show them.</param>
public sealed record Container(ContainerKind Kind, string Id)
{
    public override string ToString() => Kind switch
    {
        ContainerKind.Docker => $"Docker container {Id}",
        ContainerKind.Podman => $"Podman container {Id}",
        _ => $"container {Id}",
    };
}
