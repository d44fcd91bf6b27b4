using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Proxmox;

/// <summary>A simulated host of Proxmox VE whose VMs have the hook.</summary>
sealed class ProxmoxDesk
{
    public ProxmoxDesk(SimulatedKernel kernel, bool isLegacy = false)
    {
        Desk = new(kernel);
        Kernel.Proxmox.Install();
        Qm = new(kernel, (vm, phase) => Call(int.Parse(vm), phase)) { IsLegacy = isLegacy };
    }

    /// <summary>A USB controller in the GPU's group, as boards have it that put several slots into one.</summary>
    public static SimulatedKernel GpuBesideUsb() => new HostBuilder().With(Hosts.Card(1))
        .With(new PciHardware(new(0, 5, 0, 0), 0x1b21, 0x2142, 0x0c0330) { IommuGroup = 11 })
        .WithNvidiaDriver(new()).Loading("snd_hda_intel", "xhci_pci", "nvidia", "nvidia_uvm").Boot();

    /// <summary>Two cards in one group: a VM that is given one has the other's, too.</summary>
    public static SimulatedKernel TwinsInOneGroup() => new HostBuilder().With(Hosts.Card(1))
        .With(Hosts.Card(2).Select(f => f.Class == 0x060400 ? f : f with { IommuGroup = 11 }))
        .WithNvidiaDriver(new()).Loading("snd_hda_intel", "nvidia", "nvidia_uvm").Boot();

    public Desk Desk { get; }

    public Qm Qm { get; }

    public SimulatedKernel Kernel => Desk.Kernel;

    public MemoryLedger Ledger => Desk.Ledger;

    public PolicySet Policy { get; set; } = PolicySet.Default;

    public CancellationToken Stop { get; set; }

    /// <summary>What the last refusal said.</summary>
    public Answer.Refused? Refusal { get; private set; }

    public string Told => Desk.Memo.ToString();

    /// <summary>A VM with the hook, and these lines besides.</summary>
    public ProxmoxDesk With(string vm, params string[] lines)
    {
        Kernel.Proxmox.Write(vm, string.Join('\n', ["hookscript: local:snippets/gpu-handoff", $"name: vm{vm}", .. lines, ""]));
        return this;
    }

    public HookErrand Errand(int vm, string phase, string? from = null) =>
        HookErrand.Of(new(vm, HookCall.PhaseOf(phase)!.Value, from), Kernel, Ledger);

    /// <summary>One call of the hook, as the program makes it.</summary>
    public int Call(int vm, string phase) => Carry(Errand(vm, phase));

    /// <summary>What a look has found to do, perhaps a while ago.</summary>
    public int Carry(HookErrand errand)
    {
        var endings = new Hook(Kernel, Ledger, Desk.Turn(), Desk.Memo).Carry(errand, Policy, Stop);
        Refusal = endings.OfType<Ending.Refused>().LastOrDefault()?.Why ?? Refusal;
        return Exit(endings);
    }

    /// <summary>The exit code as the program gives it.</summary>
    public static int Exit(IEnumerable<Ending> endings) => endings.Select(Exit).DefaultIfEmpty(ExitCode.Done).Max();

    static int Exit(Ending ending) => ending switch
    {
        Ending.Ran { Outcome: var outcome } => ExitCode.Of(outcome),
        Ending.Refused => ExitCode.Refused,
        _ => ExitCode.Stuck,
    };

    public void ShouldStart(string vm) => Qm.Start(vm).ShouldBeNull($"{Refusal}\n{Told}");

    /// <summary>Everything that the last refusal said.</summary>
    public string Words => Refusal is null ? "" : string.Join('\n', [Refusal.What, .. Refusal.Findings.SelectMany(f => (string[])[f.What, .. f.Evidence, f.Hint])]);

    public string DriverOf(string address) => Desk.DriverOf(address) ?? "none";

    /// <summary>The dynamic IDs of vfio-pci: what Proxmox's own bind leaves behind.</summary>
    public int Writes => Kernel.Calls.Count;

    public void ShouldBeHome(string picture)
    {
        Desk.Picture().ShouldBe(picture);
        Ledger.Leases().ShouldBeEmpty();
    }

    public static PciAddress At(string address)
    {
        PciAddress.TryParse(address, out var parsed).ShouldBeTrue();
        return parsed;
    }

    public Machine Survey() => Surveyor.Survey(Kernel, Ledger.Homes(), Target.Vfio, Ledger.Wedges(), Ledger.Leases());
}
