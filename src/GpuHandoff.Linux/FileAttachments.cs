using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using GpuHandoff.Formats;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;

namespace GpuHandoff.Linux;

/// <summary><c>/var/lib/gpu-handoff/attach-101.json</c> for each VM that got something from us.</summary>
public sealed class FileAttachments(string folder) : IAttachments
{
    readonly RootFolder _folder = new(folder);

    public ImmutableArray<Attachment> All() => [.. _folder.Each("attach-", ".json", Read)];

    public void Keep(Attachment attachment)
    {
        _folder.Make();
        _folder.Replace(PathOf(attachment.Vm), file => JsonSerializer.Serialize(file, attachment, Json.Default.Attachment));
    }

    public void Forget(int vm) => RootFolder.Delete(PathOf(vm));

    string PathOf(int vm) => Path.Combine(folder, $"attach-{vm.ToString(CultureInfo.InvariantCulture)}.json");

    static Attachment Read(string path)
    {
        try
        {
            using var file = File.OpenRead(path);
            return JsonSerializer.Deserialize(file, Json.Default.Attachment) switch
            {
                null or { Settings.IsDefault: true } => throw Unreadable(path, 1, "it is empty"),
                { Version: var version } when version > Attachment.Newest =>
                    throw Unreadable(path, 1, $"it has version {version}, and this program knows {Attachment.Newest}"),
                var read => read with { Folders = read.Folders.IsDefault ? [] : read.Folders },
            };
        }
        catch (JsonException e)
        {
            throw Unreadable(path, e.LineNumber + 1 ?? 1, e.Message, e);
        }
        catch (Exception e) when (RootFolder.IsTrouble(e))
        {
            throw RootFolder.Unreadable(path, e);
        }
    }

    static LedgerRefused Unreadable(string path, long line, string why, Exception? cause = null) => new(
        $"{path}, line {line}: the record of what a VM was given cannot be read: {why}",
        $"look at it; if it is of no use, remove it: sudo rm '{path}' (what attach gave the VM is then yours to take away with qm set)",
        cause);
}
