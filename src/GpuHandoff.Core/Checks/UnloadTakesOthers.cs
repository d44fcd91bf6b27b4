using System.Collections.Immutable;
using GpuHandoff.Goals;

namespace GpuHandoff.Checks;

static class UnloadTakesOthers
{
    public static Check Check { get; } = new(
        "unload-takes-others", Target.Vfio,
        "Unloading nvidia takes it from every card, not only from the one that is handed over.",
        q =>
        {
            var others = q.Machine.NvidiaGpus()
                .Where(g => g.Display().Owner.Driver == "nvidia" && q.Goal.Gpus.All(w => w.Address != g.Address)).ToImmutableArray();
            return q.By != FreeBy.Unload || others is []
                ? []
                : [new(
                    "unload-takes-others",
                    "other GPUs work for the host on the modules that would be unloaded",
                    [.. others.Select(g => $"{g.Display()} driver=nvidia")],
                    "take --policy unbind or --policy auto, or hand them all over with --gpu all")];
        });
}
