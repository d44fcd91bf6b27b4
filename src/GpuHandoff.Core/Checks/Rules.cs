using System.Collections.Immutable;

namespace GpuHandoff.Checks;

/// <summary>Every check, in the order in which a person would want to be told.</summary>
public static class Rules
{
    public static ImmutableArray<Check> All { get; } =
    [
        GpuIsWedged.Check,
        GpuIsLent.Check,
        GpuIsLost.Check,
        IommuOff.Check,
        VfioMissing.Check,
        GroupIsShared.Check,
        ModuleInMotion.Check,
        UnloadNotPossible.Check,
        UnloadTakesOthers.Check,
        DrmHoldsTheCard.Check,
        GpuIsInUse.Check,
        SiblingIsInUse.Check,
        ContainerHasTheGpu.Check,
        ConsoleWouldBeLost.Check,
        ConsoleIsSpared.Check,
        BarSizeNotOffered.Check,
        HostDriverMissing.Check,
        VmHasTheGpu.Check,
    ];
}
