using GpuHandoff.Goals;
using GpuHandoff.Machines;

namespace GpuHandoff.Checks;

static class GroupIsShared
{
    public static Check Check { get; } = new(
        "group-is-shared", Target.Vfio,
        "A VM gets an IOMMU group whole or not at all; a neighbour would leave the host together with the GPU.",
        // A driverless neighbour, or one that vfio-pci has, keeps no VM from its group (iommu.c:iommu_group_claim_dma_owner).
        // Nobody asks a disk's file systems whether they are done with it, and another GPU has checks of its own: neither is
        // taken along.
        q => from other in q.Gpu.Neighbours
             where other.Owner.Driver is not (null or "vfio-pci" or "pci-stub")
             where other.Class.IsStorage() || IsGpu(q, other) || !q.Policy.For(q.Gpu).Accepted.Contains(other.Address)
             where !q.Goal.Gpus.Any(g => g.Functions.Any(f => f.Address == other.Address))
             select new Finding(
                 "group-is-shared",
                 $"{q.Gpu.Slot()} shares IOMMU group {other.Group} with a stranger",
                 [$"{other} driver={other.Owner.Driver}"],
                 IsGpu(q, other) ? "hand both cards over together: --gpu all"
                     : other.Class.IsStorage()
                     ? "move the card to another slot; a storage controller is not taken from the host"
                     : $"move the card to another slot, or let the neighbour go to the VM too with --accept-neighbour {other.Address}"));

    static bool IsGpu(Question q, PciFunction function) => q.Machine.Gpus.Any(g => g.Address.SharesSlotWith(function.Address));
}
