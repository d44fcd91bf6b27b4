using GpuHandoff.Goals;
using GpuHandoff.Survey;

namespace GpuHandoff.Checks;

static class DrmHoldsTheCard
{
    public static Check Check { get; } = new(
        "drm-holds-the-card", Target.Vfio,
        "Before 580.105.08 nvidia_drm does not let go of a single card, and with modeset=1 it hides other users: it goes before the unbind, or the unbind might never end.",
        q => DrmMustGo(q) && q.Machine.Module("nvidia_drm") is { } drm && (drm.Users() > TextConsole.HoldsOf(drm.Name, q.Machine, q.Goal.Gpus) || drm.RefCount is null)
            ? [new(
                "drm-holds-the-card",
                q.Machine.Nvidia?.DrmFollowsUnbind() == true
                    ? "nvidia_drm is in use, and with modeset=1 it hides whether anybody else uses this card"
                    : $"nvidia_drm is in use, and driver {q.Machine.Nvidia} cannot unbind one card under it",
                [
                    drm.RefCount is null ? "this kernel cannot unload modules" : $"nvidia_drm has {drm.Users()} users",
                    .. q.Machine.Users.Where(u => u.Path.Contains("/dri/", StringComparison.Ordinal)).Select(u => u.ToString()),
                ],
                q.Machine.Users.Any(u => u.KeepsASession()) ? GpuIsInUse.EndTheSession : "end the display server on the NVIDIA cards and try again")]
            : []);

    /// <summary>Whether nvidia_drm has to be unloaded around the unbind of a single card.</summary>
    public static bool DrmMustGo(Question q) =>
        q.By == FreeBy.Unbind
        && q.Gpu.Display().Owner.Driver == "nvidia"
        && q.Machine.Module("nvidia_drm").IsThere()
        // An unknown version is taken for an old one: the mistake costs a reload, the other one a hang. A newer one lets the
        // card go, but with modeset=1 it hides whether anybody else has it, unless the counts show that nobody has anything.
        && (q.Machine.Nvidia?.DrmFollowsUnbind() != true
            || (NvidiaStack.DrmHoldsModules(q.Machine) && !Idleness.AreUnused(NvidiaStack.Loaded(q.Machine))));
}
