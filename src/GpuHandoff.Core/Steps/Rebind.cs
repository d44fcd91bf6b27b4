using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Steps;

/// <summary>One function from one driver to another.</summary>
/// <param name="From">Null: from whatever it has.</param>
public sealed record Rebind(PciAddress Function, Owner? From, Owner To) : Step
{
    public override string Say() => From is not null && From.Driver == To.Driver
        ? $"{Function}: stays on {To}, override {From.Only ?? "(null)"} → {To.Only ?? "(null)"}"
        : $"{Function}: {From?.ToString() ?? "its driver"} → {To}";

    public override Step? Undo() => From is null ? null : this with { From = To, To = From };

    public override Position Look(IKernel kernel) => Binding.Of(Function, kernel) switch
    {
        var now when now == To => Position.There,
        { Driver: var driver } when driver is null || From is null || driver == From.Driver || driver == To.Driver => Position.OnTheWay,
        _ => Position.Elsewhere,
    };

    public override void Run(IKernel kernel, Limits limits)
    {
        // Aim first: from here on no other driver can take the function, even one that loads this instant, and vfio-pci's
        // dynamic IDs, which nobody can list, cannot take it back.
        Binding.Aim(Function, To.Driver ?? To.Only, kernel, limits);
        Binding.Release(Function, To.Driver, kernel, limits);
        if (To.Driver is not { } driver)
            return;
        Binding.Bind(Function, driver, kernel, limits);
        // Settled on its driver, it gets the override that it shall keep.
        Binding.Aim(Function, To.Only, kernel, limits);
    }
}
