using GpuHandoff.Lab.VirtualGpu;
using GpuHandoff.Machines;

namespace GpuHandoff.Lab.Vm;

/// <summary>A function as the guest sees it, and what the guest did to it.</summary>
public sealed class PluggedFunction
{
    readonly VirtualFunction function;

    internal PluggedFunction(PciAddress address, VirtualFunction function)
    {
        Address = address;
        this.function = function;
    }

    public PciAddress Address { get; }

    public FunctionKind Kind => function.Kind;

    public TrafficLog Log => function.Log;

    /// <summary>From now on the function reads as ones everywhere and takes no write, as a card that is lost to its bus.</summary>
    public void FallOffTheBus() => function.IsOnTheBus = false;

    public void ComeBack() => function.IsOnTheBus = true;

    public override string ToString() => $"{Address} {Kind}";
}

/// <summary>A card as the guest sees it.</summary>
/// <param name="Stranger">The network card in the same IOMMU group, where one was asked for.</param>
public sealed record PluggedGpu(IReadOnlyList<PluggedFunction> Functions, PciAddress? Stranger)
{
    public PciAddress Address => Functions[0].Address;

    public override string ToString() => Address.Slot;
}
