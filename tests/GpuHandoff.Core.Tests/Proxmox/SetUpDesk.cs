using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Proxmox;

/// <summary>attach and detach on a simulated host of Proxmox, against a qm that does to a configuration what the real one does.</summary>
public class SetUpDesk
{
    public const string Program = "/usr/local/sbin/gpu-handoff";
    public const string Link = "/var/lib/vz/snippets/gpu-handoff";
    public const string Windows = "bios: ovmf\nmachine: pc-q35-9.2\nmemory: 8192\nname: windows\n";

    internal Desk Desk { get; }

    public MemoryAttachments Records { get; } = new();

    public SetUpDesk()
        : this(Hosts.SingleGpu())
    {
    }

    public SetUpDesk(SimulatedKernel kernel)
    {
        Desk = new(kernel);
        Kernel.Proxmox.Write("101", Windows);
        Kernel.Files.Write(Program, "");
    }

    public SimulatedKernel Kernel => Desk.Kernel;

    public SetUp SetUp(IKernel? through = null, int pid = 9000) =>
        new(through ?? Kernel, Desk.Ledger, new MemoryLedger(), Records, new MemoryLocks(Desk.Locks, $"{pid} gpu-handoff"), Desk.Memo, Program);

    public Ending Attach(int vm = 101, string? gpu = null, string? mapping = null, bool primary = false) =>
        SetUp().Attach(new(vm, gpu, mapping, primary), Policy.Default, CancellationToken.None);

    public Ending Detach(int vm = 101) => SetUp().Detach(vm, CancellationToken.None);

    public static int ChangesOf(Ending ending) => ending.ShouldBeOfType<Ending.Ran>().Outcome.ShouldBeOfType<Outcome.Done>().Changes;

    public static ImmutableArray<string> NotesOf(Ending ending) => ending.ShouldBeOfType<Ending.Ran>().Plan.Notes;

    /// <summary>The refusal's findings; nothing was changed.</summary>
    public ImmutableArray<Checks.Finding> Refused(Func<Ending> act)
    {
        var before = (Kernel.Files.Describe(), Kernel.Calls.Count, Records.All().Length);
        var findings = act().ShouldBeOfType<Ending.Refused>(Desk.Memo.ToString()).Why.Findings;
        (Kernel.Files.Describe(), Kernel.Calls.Count, Records.All().Length).ShouldBe(before);
        return findings;
    }

    public string Config(string vm = "101") => Kernel.Proxmox.Config(vm)!;
}
