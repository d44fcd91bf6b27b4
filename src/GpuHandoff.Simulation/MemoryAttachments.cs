using System.Collections.Immutable;
using GpuHandoff.Proxmox;

namespace GpuHandoff.Simulation;

/// <summary>What VMs got, for tests and recorded machines.</summary>
public sealed class MemoryAttachments : IAttachments
{
    readonly SortedDictionary<int, Attachment> attachments = [];

    public ImmutableArray<Attachment> All() => [.. attachments.Values];

    public void Keep(Attachment attachment)
    {
        ArgumentNullException.ThrowIfNull(attachment);
        attachments[attachment.Vm] = attachment;
    }

    public void Forget(int vm) => attachments.Remove(vm);
}
