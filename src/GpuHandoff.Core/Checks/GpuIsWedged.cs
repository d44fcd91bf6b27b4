using GpuHandoff.Machines;

namespace GpuHandoff.Checks;

static class GpuIsWedged
{
    public static Check Check { get; } = new(
        "gpu-is-wedged", null,
        "A call that never came back still has the device's lock: the next write to the card would hang behind it, and so might a shutdown.",
        q => Find(q.Machine, q.Gpu) is { } finding ? [finding] : []);

    public static Finding? Find(Machine machine, Gpu gpu) => machine.WedgeOf(gpu) is not { } wedge ? null : new(
        "gpu-is-wedged",
        $"{gpu} has been stuck since {Time(wedge.Since)} after boot",
        [
            $"no answer to: {wedge.Call}{(wedge.Process is { } process ? $" ({process})" : "")}",
            .. wedge.NotUndone.Select(step => $"not undone: {step}"),
        ],
        "reboot the host; if the call has come back since, gpu-handoff recover --unwedge tells and takes the rest back");

    static string Time(TimeSpan since) => $"{(int)since.TotalHours}:{since.Minutes:00}:{since.Seconds:00}";
}
