using System.Collections.Immutable;
using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests;

/// <summary>A simulated host with a ledger, on which a test hands GPUs over as the command line does.</summary>
sealed class Desk(SimulatedKernel kernel)
{
    /// <summary>Modules that may stay loaded after a hand-over.</summary>
    static readonly string[] _mayStay = ["vfio_pci", "snd_hda_intel"];

    readonly bool _hasFirmwareConsole = IsFirmwares(kernel.Describe(), kernel);

    public SimulatedKernel Kernel { get; } = kernel;

    public MemoryLedger Ledger { get; } = new();

    public MemoryLocks.Table Locks { get; } = new();

    public Memo Memo { get; } = new();

    /// <summary>Whether the console is the firmware's on a VGA card; on another vfio-pci leaves it alone.</summary>
    static bool IsFirmwares(string picture, SimulatedKernel kernel) => picture.Contains("console VGA+")
        || picture.Split('\n').Any(line => line.StartsWith("firmware ", StringComparison.Ordinal)
            && kernel.Device(line.Split(' ')[^1]).Hardware.Class >> 8 == 0x0300);

    /// <summary>Everything that a hand-over could change, but for modules that may stay.</summary>
    /// <remarks>
    /// A firmware's frame buffer is left out: vfio-pci takes it away from a class 0x0300 card and no call brings it back
    /// (video/aperture.c:aperture_remove_conflicting_pci_devices), which no undo can undo.
    /// </remarks>
    public string Picture() => string.Join('\n', Kernel.Describe(_mayStay).Split('\n')
        .Where(line => !_hasFirmwareConsole || !(line.StartsWith("framebuffer", StringComparison.Ordinal)
            || line.StartsWith("firmware", StringComparison.Ordinal) || line.StartsWith("console", StringComparison.Ordinal)
            // simpledrm's card goes with it, and with it the numbers of the others.
            || line.StartsWith("node /dev/fb", StringComparison.Ordinal) || line.StartsWith("node /dev/dri", StringComparison.Ordinal)))
        // Frame buffers are numbered in the order in which they come; which card has one is what counts.
        .Select(line => line.StartsWith("framebuffer", StringComparison.Ordinal) ? $"framebuffer {line.Split(' ', 3)[2]}" : line)
        .Order(StringComparer.Ordinal));

    public Machine Survey(Target? target = null) => Surveyor.Survey(Kernel, Ledger.Homes(), target, Ledger.Wedges(), Ledger.Leases());

    /// <summary>One run as the command line makes it, from the choice of the card to the end.</summary>
    public Ending HandOver(Target target, string? gpu = null, Policy? policy = null, CancellationToken stop = default) =>
        Turn().HandOver(target, gpu, policy ?? Policy.Default, stop);

    public ImmutableArray<Ending> Recover() => Turn().Recover(Policy.Default, wait: true, CancellationToken.None);

    /// <summary>A process that runs gpu-handoff on this host.</summary>
    public Turn Turn(int pid = 9000, IKernel? through = null) =>
        new(through ?? Kernel, Ledger, new MemoryLocks(Locks, $"{pid} gpu-handoff"), Memo);

    public Answer Plan(Target target, string? gpu = null, Policy? policy = null)
    {
        var machine = Survey(target);
        var chosen = Selection.Of(machine, gpu).ShouldBeOfType<Selection.Chosen>();
        return Planner.Plan(machine, new(target, chosen.Gpus), policy ?? Policy.Default);
    }

    public Plan Planned(Target target, string? gpu = null, Policy? policy = null) =>
        Plan(target, gpu, policy).ShouldBeOfType<Answer.Planned>().Plan;

    public Answer.Refused Refused(Target target, string? gpu = null, Policy? policy = null)
    {
        var before = (Kernel.Describe(), Kernel.Calls.Count);
        var refused = Plan(target, gpu, policy).ShouldBeOfType<Answer.Refused>();
        (Kernel.Describe(), Kernel.Calls.Count).ShouldBe(before);
        return refused;
    }

    public Outcome Run(Target target, string? gpu = null, Policy? policy = null, CancellationToken stop = default) =>
        Run(Planned(target, gpu, policy), policy, stop);

    public Outcome Run(Plan plan, Policy? policy = null, CancellationToken stop = default) =>
        new Executor(Kernel, Ledger, Memo, (policy ?? Policy.Default).Limits).Run(plan, stop);

    /// <summary>Runs the plan through a process that may die on the way. Nobody looks at its journal afterwards.</summary>
    public Action<Mortal> Running(Target target, string? gpu = null, Policy? policy = null)
    {
        var plan = Planned(target, gpu, policy);
        return mortal => new Executor(mortal, Ledger, Memo, (policy ?? Policy.Default).Limits).Run(plan, CancellationToken.None);
    }

    public void Done(Target target, string? gpu = null, Policy? policy = null)
    {
        var outcome = Run(target, gpu, policy);
        outcome.ShouldBeOfType<Outcome.Done>(Memo.ToString());
    }

    public string? DriverOf(string address)
    {
        PciAddress.TryParse(address, out var function).ShouldBeTrue();
        return Surveyor.DriverOf(function, Kernel);
    }

    public string? OverrideOf(string address)
    {
        PciAddress.TryParse(address, out var function).ShouldBeTrue();
        return Surveyor.OverrideOf(function, Kernel);
    }
}
