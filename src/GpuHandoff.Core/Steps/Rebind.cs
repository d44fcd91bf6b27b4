using System.Text.Json.Serialization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>One function from one driver to another.</summary>
/// <param name="From">Null: from whatever it has.</param>
public sealed record Rebind(PciAddress Function, Owner? From, Owner To) : Step
{
    /// <summary>What mends the card where the host's driver does not take it back: on the way there, or as the undo.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public Ladder? Ladder { get; init; }

    /// <summary>Reset the card while no driver has it.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool ResetFirst { get; init; }

    public override string Say() => From is not null && From.Driver == To.Driver
        ? $"{Function}: stays on {To}, override {From.Only ?? "(null)"} → {To.Only ?? "(null)"}"
        : $"{Function}: {From?.ToString() ?? "its driver"} → {To}{(ResetFirst ? ", with a reset before" : "")}";

    public override string? SayElse() => Mends() is { } ladder
        ? $"if {To} does not take it: once more{string.Concat(ladder.Rungs.Select(r => $", then {ladder.Say(r)}"))}"
        : ResetFirst && Ladder is { Rungs: [_, _, ..] rungs }
        ? $"if {Ladder.Say(rungs[0])} does not work: {string.Join(", then ", rungs.Skip(1).Select(Ladder.Say))}"
        : null;

    public override Step? Undo() => From is null ? null : this with { From = To, To = From, ResetFirst = false };

    public override Position Look(IKernel kernel) => Binding.Of(Function, kernel) switch
    {
        var now when now == To => Position.There,
        { Driver: var driver } when driver is null || From is null || driver == From.Driver || driver == To.Driver => Position.OnTheWay,
        _ => Position.Elsewhere,
    };

    public override void Run(IKernel kernel, Limits limits)
    {
        var power = To.Driver == Owner.Vfio ? Surveyor.PowerOf(Function, kernel) : null;
        // Aim first: from here on no other driver can take the function, even one that loads this instant, and vfio-pci's
        // dynamic IDs, which nobody can list, cannot take it back.
        Binding.Aim(Function, To.Driver ?? To.Only, kernel, limits);
        Binding.Release(Function, To.Driver, kernel, limits);
        if (To.Driver is not { } driver)
            return;
        if (ResetFirst && Ladder is not null && Surveyor.DriverOf(Function, kernel) is null)
            Resetting.Any(Ladder, Function, kernel, limits);
        Binding.Bind(Function, driver, kernel, limits, Mends());
        // vfio-pci lets what it registers sleep (vfio_pci_core.c:vfio_pci_core_register_device, pm_runtime_allow), and forbids
        // it again when it lets go: who forbade it before wants it so still.
        if (power is not null)
            HoldPower.Set(Function, power, kernel, limits);
        // Settled on its driver, it gets the override that it shall keep.
        Binding.Aim(Function, To.Only, kernel, limits);
    }

    /// <summary>vfio-pci resets a card itself when a VM opens it: what it does not take, no reset makes it take.</summary>
    Ladder? Mends() => To.Driver is null or Owner.Vfio ? null : Ladder;
}
