using GpuHandoff.Machines;

namespace GpuHandoff.Checks;

static class ModuleInMotion
{
    public static Check Check { get; } = new(
        "module-in-motion", null,
        "A module that is being loaded or unloaded by someone else can be neither used nor removed.",
        q => from module in q.Machine.Modules
             where q.Gpu.IsNvidia() && NvidiaStack.Has(module.Name)
             where module.State is ModuleState.Loading or ModuleState.Unloading
             select new Finding(
                 "module-in-motion",
                 $"module {module.Name} is {(module.State == ModuleState.Loading ? "being loaded" : "being unloaded")} by someone else",
                 [$"/sys/module/{module.Name}/initstate"],
                 "wait until it is done and try again; if it stays so, the kernel log (dmesg) says where it hangs"));
}
