using GpuHandoff.Kernel;
using GpuHandoff.Linux;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Commands;

/// <summary>The machine that a command is about: the live one, or a recorded one that can only be looked at.</summary>
static class Place
{
    public static IKernel ToLookAt(DirectoryInfo? root) =>
        root is null ? new LinuxKernel(hand: null) : new RecordedTree(root.FullName);

    /// <summary>The folder of the policy's files.</summary>
    public static PolicyFolder Policy(DirectoryInfo? root) =>
        root is null ? new(PolicyFolder.Default) : new(Path.Combine(root.FullName, "etc"), owner: null);

    /// <summary>What VMs got from us.</summary>
    public static IAttachments Attachments(DirectoryInfo? root) => root is null ? new FileAttachments(FileLedger.DefaultFolder) : new MemoryAttachments();

    public static ILedger Ledger(DirectoryInfo? root) =>
        root is null ? new FileLedger(FileLedger.DefaultFolder, FileLedger.DefaultOfThisBoot) : new MemoryLedger();
}
