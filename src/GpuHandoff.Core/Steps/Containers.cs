using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Steps;

/// <summary>Containers through their managers' programs.</summary>
static class Containers
{
    // What it gets to end by itself, in seconds, before its manager kills it: less than a step's own limit.
    const string Patience = "60";

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

    public static void Stop(Container container, IKernel kernel, Limits limits)
    {
        if (container.Kind == ContainerKind.Lxc)
            kernel.Demand(limits.Users, Programs.Pct, "shutdown", container.Id, "--forceStop", "1", "--timeout", Patience);
        else
            kernel.Demand(limits.Users, Program(container), "stop", "-t", Patience, container.Id);
    }

    public static void Start(Container container, IKernel kernel, Limits limits) =>
        kernel.Demand(limits.Users, Program(container), "start", container.Id);

    static string Program(Container container) => Programs.Of(container.Kind);
}
