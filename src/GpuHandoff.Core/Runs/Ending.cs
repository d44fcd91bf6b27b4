using GpuHandoff.Kernel;
using GpuHandoff.Plans;

namespace GpuHandoff.Runs;

/// <summary>How a wish ended.</summary>
public abstract record Ending
{
    /// <summary>Nothing was written for it. What the same run had to do before is in its <see cref="Footprint"/>.</summary>
    public sealed record Refused(Answer.Refused Why) : Ending
    {
        /// <summary>The ledger or the machine could not be looked at, or nothing could be written down.</summary>
        public static Refused Of(Exception trouble) => new(new Answer.Refused(trouble.Message,
        [
            trouble is LedgerRefused ledger
                ? new("ledger", trouble.Message, [], ledger.Hint)
                : new("kernel", trouble.Message, [], (trouble as KernelRefused)?.Hint ?? "look at the kernel log: dmesg | tail"),
        ]));
    }

    /// <summary>A plan was made and carried out, to whatever outcome.</summary>
    public sealed record Ran(Plan Plan, Outcome Outcome) : Ending;

    /// <summary>The kernel did not even answer a look. Nothing was written for it.</summary>
    public sealed record Unanswered(KernelSilent Call) : Ending;
}
