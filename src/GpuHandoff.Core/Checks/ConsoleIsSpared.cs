using GpuHandoff.Goals;

namespace GpuHandoff.Checks;

static class ConsoleIsSpared
{
    public static Check Check { get; } = new(
        "console-is-spared", Target.Vfio,
        "Whoever sits at the host's console loses it for as long as the VM has the card. A VM that runs only to be backed up is not worth that, unless the policy says so.",
        q => q.Policy.For(q.Gpu).SpareConsole && TextConsole.HomeOf(q.Machine, q.Gpu, q.Goal.Gpus) is not null
            ? [new(
                "console-is-spared",
                $"the host's text console is on {q.Gpu}",
                [$"{TextConsole.On(q.Machine, q.Goal.Gpus)?.Name} shows it there, and on no other card"],
                "have the console on another card, or let the policy hand the card over all the same (backup: always)")]
            : []);
}
