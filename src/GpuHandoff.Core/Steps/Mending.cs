using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Steps;

/// <summary>
/// A driver that does not take its function: asked once more after a pause, for what passes by itself, then after each
/// rung of the card's ladder.
/// </summary>
static class Mending
{
    static readonly TimeSpan _pause = TimeSpan.FromSeconds(1);

    /// <summary>Attempts until it succeeds or nothing is left to try; then refuses with the whole story.</summary>
    /// <param name="isProbe">Whether a refusal comes from the probe: only that is evidence for a reset.</param>
    /// <param name="cards">The functions that the driver does not take, each with the ladder of its card.</param>
    public static void Until(
        Action attempt, Func<KernelRefused, bool> isProbe, IReadOnlyList<(PciAddress Function, Ladder Ladder)> cards, IKernel kernel, Limits limits)
    {
        if (Try(attempt) is not { } first)
            return;
        var refused = first;
        var began = kernel.Uptime;
        var told = new List<string> { refused.Reason };
        kernel.Pause(_pause);
        if (Tried("tried again"))
            return;
        if (!isProbe(refused))
            throw Failed();

        foreach (var rung in cards.SelectMany(c => c.Ladder.Rungs).Distinct().Order())
        {
            // A call cut short for the total's sake would count as silent: a rung is begun where all of it has room.
            if (kernel.Uptime - began + limits.Reset > limits.Total)
            {
                told.Add("no time is left for a reset");
                break;
            }
            var words = cards.First(c => c.Ladder.Rungs.Contains(rung)).Ladder.Say(rung);
            var climbed = false;
            foreach (var (function, ladder) in cards.Where(c => c.Ladder.Rungs.Contains(rung)))
            {
                try
                {
                    if (Resetting.Climb(rung, ladder, function, kernel, limits) is { } why)
                        told.Add($"{words}: {why}");
                    else
                        climbed = true;
                }
                catch (KernelRefused lost)
                {
                    told.Add(lost.Message);
                    throw Failed();
                }
            }
            if (climbed && Tried($"after {words}"))
                return;
            if (!isProbe(refused))
                break;
        }
        throw Failed();

        bool Tried(string when)
        {
            if (Try(attempt) is not { } again)
                return true;
            told.Add($"{when}: {again.Reason}");
            refused = again;
            return false;
        }

        KernelRefused Failed() => new(refused.Call, refused.Errno, string.Join("; ", told));
    }

    /// <summary>Attempts once, and once more after a pause; the refusal that stayed, null where it went well.</summary>
    public static KernelRefused? Twice(Action attempt, IKernel kernel)
    {
        if (Try(attempt) is null)
            return null;
        kernel.Pause(_pause);
        return Try(attempt);
    }

    static KernelRefused? Try(Action attempt)
    {
        try
        {
            attempt();
            return null;
        }
        catch (KernelRefused refused)
        {
            return refused;
        }
    }
}
