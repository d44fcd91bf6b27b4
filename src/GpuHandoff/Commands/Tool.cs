using System.CommandLine;

namespace GpuHandoff.Commands;

/// <summary>The command line as a whole.</summary>
static class Tool
{
    /// <summary>Signals are ours: a rollback may take longer than a library's patience.</summary>
    public static InvocationConfiguration Invocation { get; } = new()
    {
        ProcessTerminationTimeout = null,
        EnableDefaultExceptionHandler = false,
    };

    public static RootCommand Build() => new(
        "Hands a GPU and its sibling functions from the host's driver to vfio-pci and back: no reboot, no hang, nothing lost.")
    {
        StatusCommand.Build(),
        PlanCommand.Build(),
        HandOver.ToVfio(),
        HandOver.ToHost(),
        HandOver.Either(),
        LeasesCommand.Build(),
        ReconcileCommand.Build(),
        RecoverCommand.Build(),
        HookCommand.Build(),
        AttachCommand.Attach(),
        AttachCommand.Detach(),
        VmsCommand.Build(),
        PolicyCommand.Build(),
        DemoCommand.Build(),
        VersionCommand.Build(),
    };
}
