using System.Collections.Immutable;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Kernel;

/// <summary>
/// What must still hold at the moment of a write that would never return otherwise. The process that writes looks at it, right
/// before the write and with nothing in between: a proof that was taken before a scan of all processes is old when it is used.
/// </summary>
/// <param name="Empty">A folder that must have no entries (<c>msi_irqs</c> of a function: nvidia takes interrupts at first open); null: none.</param>
/// <param name="Modules">
/// The number of users, other modules apart, that a module's count may show at most. They are the users that the proof had explained:
/// one more is a user that came since, and one less holds nothing up.
/// </param>
public sealed record LastLook(SysPath? Empty, ImmutableArray<ModuleUsers> Modules)
{
    /// <summary>Why the write may not be made; null: it may.</summary>
    public string? WhyNot(IKernel kernel)
    {
        if (!Modules.IsEmpty)
        {
            var now = ModuleList.Parse(kernel.Read(Sys.Proc / "modules") ?? "");
            foreach (var (module, users) in Modules)
            {
                if (now.FirstOrDefault(m => m.Name == module) is { } found && found.Users() > users)
                    return $"module {module} has {found.Users()} users that are no modules, and had {users} a moment before";
            }
        }
        // The folder last: it is the quickest to read, so what is left between this and the write is shortest.
        return Empty is { } folder && kernel.List(folder) is { Count: > 0 and var entries } ? $"{folder} has {entries} entries: the GPU is open" : null;
    }
}

/// <summary>A module of /proc/modules, and how many users it has that are no modules (<see cref="KernelModule.Users"/>).</summary>
public sealed record ModuleUsers(string Module, int Users);
