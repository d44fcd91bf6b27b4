using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Steps;

/// <summary>A function off vfio-pci and to whatever driver the kernel has for it: nobody wrote down where it came from.</summary>
public sealed record LetKernelPick(PciAddress Function, PciId Id, Owner From) : Step
{
    public override string Say() => $"{Function}: {From} → the driver that the kernel picks";

    public override Step Undo() => new Rebind(Function, From: null, To: From);

    public override Position Look(IKernel kernel) => Binding.Of(Function, kernel) switch
    {
        // No driver is an answer too: the kernel may have none. An override that excludes all would be the wrong reason.
        { Driver: not Owner.Vfio, Only: null } => Position.There,
        _ => Position.OnTheWay,
    };

    public override void Run(IKernel kernel, Limits limits)
    {
        Binding.Release(Function, wanted: null, kernel, limits);
        Binding.Aim(Function, null, kernel, limits);
        ForgetDynamicId(kernel, limits);
        kernel.Write(Sys.Pci / "drivers_probe", Function.ToString(), limits.Write);
    }

    // Proxmox leaves the card's ID in vfio-pci (PVE::SysFSTools, new_id); a plain probe would land there again.
    void ForgetDynamicId(IKernel kernel, Limits limits)
    {
        try
        {
            kernel.Write(Sys.Driver(Owner.Vfio) / "remove_id", $"{Id.Vendor:x4} {Id.Device:x4}", limits.Write);
        }
        catch (KernelRefused refused) when (refused.Errno is Errno.NoDevice or Errno.NoEntry)
        {
            // Not in the list (pci-driver.c:remove_id_store), or no vfio-pci that could have one: that is what we want.
        }
    }
}
