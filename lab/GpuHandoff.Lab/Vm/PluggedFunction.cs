using GpuHandoff.Lab.VirtualGpu;
using GpuHandoff.Machines;

namespace GpuHandoff.Lab.Vm;

/// <summary>A function as the guest sees it, and what the guest did to it.</summary>
public sealed record PluggedFunction(PciAddress Address, FunctionKind Kind, TrafficLog Log)
{
    public override string ToString() => $"{Address} {Kind}";
}

/// <summary>A card as the guest sees it.</summary>
/// <param name="Stranger">The network card in the same IOMMU group, where one was asked for.</param>
public sealed record PluggedGpu(IReadOnlyList<PluggedFunction> Functions, PciAddress? Stranger)
{
    public PciAddress Address => Functions[0].Address;

    public override string ToString() => Address.Slot;
}
