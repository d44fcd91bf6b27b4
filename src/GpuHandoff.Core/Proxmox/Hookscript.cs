using System.Text.Json.Serialization;

namespace GpuHandoff.Proxmox;

/// <summary>What a VM has for its hookscript, seen from here.</summary>
public enum Hookscript
{
    [JsonStringEnumMemberName("none")]
    None,

    [JsonStringEnumMemberName("ours")]
    Ours,

    /// <summary>Somebody's own: Proxmox takes one only, and it may call us or not.</summary>
    [JsonStringEnumMemberName("another")]
    Another,
}

/// <summary>Our program under the name that a VM's configuration knows it by.</summary>
public static class Snippet
{
    public const string Name = "gpu-handoff";
    public const string Volume = $"local:snippets/{Name}";

    /// <summary>The same name on another storage is us as well: a shared one that all nodes have.</summary>
    public static Hookscript Of(string? volume) => volume switch
    {
        null => Hookscript.None,
        _ when volume.EndsWith($":snippets/{Name}", StringComparison.Ordinal) => Hookscript.Ours,
        _ => Hookscript.Another,
    };
}
