using GpuHandoff.Goals;
using GpuHandoff.Machines;

namespace GpuHandoff.Checks;

static class UnloadNotPossible
{
    public static Check Check { get; } = new(
        "unload-not-possible", Target.Vfio,
        "A driver that is built in, or a kernel without module unloading, cannot be asked to let go by unloading.",
        q => from module in NvidiaStack.Loaded(q.Machine)
             where q.By == FreeBy.Unload && (module.State == ModuleState.BuiltIn || module.RefCount is null)
             select new Finding(
                 "unload-not-possible",
                 $"module {module.Name} cannot be unloaded",
                 [module.State == ModuleState.BuiltIn ? "it is built into the kernel" : "/proc/modules has no reference count for it"],
                 "let the card be unbound instead: --policy unbind"));
}
