using System.Collections.Immutable;
using System.Text.Json.Serialization;

namespace GpuHandoff.Proxmox;

/// <summary>
/// What a VM got from us: on disk before the first of it is done, gone when the last of it is taken back. A run that is
/// killed in between leaves no more than it says, and detach takes back no more than it says.
/// </summary>
/// <param name="Settings">Lines of its configuration, with what they were before.</param>
public sealed record Attachment(int Vm, ImmutableArray<VmLine> Settings)
{
    public const int Newest = 1;

    /// <summary>The record's format, so that a later program can tell what it reads.</summary>
    public int Version { get; init; } = Newest;

    /// <summary>Folders that were made for the link, outermost first.</summary>
    public ImmutableArray<string> Folders { get; init; } = [];

    /// <summary>The link that was made; null: it was there.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Link { get; init; }

    /// <summary>With what a later attach adds. What was before the first of them is what counts.</summary>
    public Attachment And(Attachment later) => this with
    {
        Settings =
        [
            .. Settings.Select(s => later.Settings.FirstOrDefault(l => l.Key == s.Key) is { } l ? s with { To = l.To } : s),
            .. later.Settings.Where(l => Settings.All(s => s.Key != l.Key)),
        ],
        Folders = [.. Folders.Union(later.Folders)],
        Link = Link ?? later.Link,
    };
}

/// <summary>What VMs got from us, for every later run.</summary>
public interface IAttachments
{
    ImmutableArray<Attachment> All();

    void Keep(Attachment attachment);

    void Forget(int vm);
}
