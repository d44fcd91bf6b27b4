using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>Kernel persistence mode of one card: on, nvidia keeps it initialised though nobody has it open.</summary>
public sealed record SwitchPersistence(PciAddress Function, bool On) : Step
{
    public override string Say() => $"{Function}: switch persistence mode {(On ? "on" : "off")}";

    public override Step Undo() => this with { On = !On };

    // Off, a card that is still initialised is in use, and AwaitIdle tells; on, it is a comfort that a return goes without.
    public override bool MayFail() => On;

    public override Position Look(IKernel kernel) =>
        Surveyor.DriverOf(Function, kernel) != "nvidia" ? On ? Position.OnTheWay : Position.There
        : Surveyor.PersistenceOf(Function, kernel) == On ? Position.There
        : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits) =>
        kernel.Demand(limits.Program, Programs.NvidiaSmi, "-i", Function.ToString(), "-pm", On ? "1" : "0");
}
