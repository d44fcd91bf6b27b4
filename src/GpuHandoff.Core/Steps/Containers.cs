using System.Globalization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Steps;

/// <summary>Containers through their managers' programs.</summary>
static class Containers
{
    // From the end of its manager's patience to its end: the manager kills it then, and takes it down.
    static readonly TimeSpan _forTheKill = TimeSpan.FromSeconds(20);

    // A manager whose client was ended for our impatience goes on (PVE's worker, Docker's daemon): what it does later would
    // be after we said that all is as it was.
    static readonly TimeSpan _settling = TimeSpan.FromSeconds(30);

    static readonly TimeSpan _betweenLooks = TimeSpan.FromMilliseconds(500);
    static readonly TimeSpan _aMoment = TimeSpan.FromSeconds(1);

    /// <summary>Null where its manager does not know it, or does not answer.</summary>
    public static bool? IsRunning(Container container, IKernel kernel)
    {
        try
        {
            var (exit, output) = container.Kind == ContainerKind.Lxc
                ? kernel.RunProgram(Programs.Pct, ["status", container.Id], Limits.Default.Program)
                : kernel.RunProgram(Program(container), ["inspect", "--format", "{{.State.Running}}", container.Id], Limits.Default.Program);
            // status: running          true
            return exit != 0 ? null : output is "status: running" or "true";
        }
        catch (KernelRefused)
        {
            return null;
        }
    }

    /// <summary>Stopped, and seen to be down.</summary>
    /// <param name="limits">Its manager's own patience is shorter, so that its answer comes before ours ends.</param>
    public static void Stop(Container container, IKernel kernel, Limits limits)
    {
        var patience = Math.Max(5, (int)(limits.Users - _forTheKill).TotalSeconds).ToString(CultureInfo.InvariantCulture);
        var until = kernel.Uptime + limits.Users;
        try
        {
            if (container.Kind == ContainerKind.Lxc)
                kernel.Demand(limits.Users, Programs.Pct, "shutdown", container.Id, "--forceStop", "1", "--timeout", patience);
            else
                kernel.Demand(limits.Users, Program(container), "stop", "-t", patience, container.Id);
        }
        catch (KernelRefused refused) when (kernel.Uptime >= until - _aMoment)
        {
            if (!GoesDown(container, kernel, kernel.Uptime + _settling))
                throw new KernelRefused(refused.Call, refused.Errno, $"{refused.Reason}; {container} still runs, and its manager may yet stop it");
            return;
        }
        // Of a container that Proxmox's HA manages, pct shutdown changes the wanted state and returns (PVE/API2/LXC/Status.pm).
        if (!GoesDown(container, kernel, until))
        {
            throw new KernelRefused($"stop {container}", 0, "its manager reported success, but it still runs"
                + (container.Kind == ContainerKind.Lxc ? $": if Proxmox's HA manages it, stop it there (ha-manager set ct:{container.Id} --state stopped)" : ""));
        }
    }

    static bool GoesDown(Container container, IKernel kernel, TimeSpan until)
    {
        while (IsRunning(container, kernel) != false)
        {
            if (kernel.Uptime >= until)
                return false;
            kernel.Pause(_betweenLooks);
        }
        return true;
    }

    public static void Start(Container container, IKernel kernel, Limits limits) =>
        kernel.Demand(limits.Users, Program(container), "start", container.Id);

    static string Program(Container container) => Programs.Of(container.Kind);
}
