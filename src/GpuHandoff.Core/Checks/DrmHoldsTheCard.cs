using GpuHandoff.Goals;

namespace GpuHandoff.Checks;

static class DrmHoldsTheCard
{
    public static Check Check { get; } = new(
        "drm-holds-the-card", Target.Vfio,
        "Before 580.105.08 nvidia_drm does not let go of a single card: it must be unloaded before the unbind, which then would never end.",
        q => DrmMustGo(q) && q.Machine.Module("nvidia_drm") is { } drm && (drm.Users() > 0 || drm.RefCount is null)
            ? [new(
                "drm-holds-the-card",
                $"nvidia_drm is in use, and driver {q.Machine.Nvidia} cannot unbind one card under it",
                [
                    drm.RefCount is null ? "this kernel cannot unload modules" : $"nvidia_drm has {drm.Users()} users",
                    .. q.Machine.Users.Where(u => u.Path.Contains("/dri/", StringComparison.Ordinal)).Select(u => u.ToString()),
                ],
                "end the display server on the NVIDIA cards, or take a driver from 580.105.08 on")]
            : []);

    /// <summary>Whether nvidia_drm has to be unloaded around the unbind of a single card.</summary>
    public static bool DrmMustGo(Question q) =>
        q.By == FreeBy.Unbind
        && q.Gpu.Display().Owner.Driver == "nvidia"
        && q.Machine.Module("nvidia_drm").IsThere()
        // An unknown version is taken for an old one: the mistake costs a reload, the other one a hang.
        && q.Machine.Nvidia?.DrmFollowsUnbind() != true;
}
