using GpuHandoff.Checks;
using GpuHandoff.Plans;

namespace GpuHandoff.Runs;

/// <summary>What hooks and scripts depend on.</summary>
public static class ExitCode
{
    public const int Done = 0;
    public const int Refused = 1;
    public const int Usage = 2;
    public const int RolledBack = 3;
    public const int Stuck = 4;

    /// <summary>A GPU that is lost needs a person, whether a run has lost it or finds it so.</summary>
    public static int Of(Answer.Refused refused) => IsLost(refused) ? Stuck : Refused;

    public static bool IsLost(Answer.Refused refused) => refused.Findings.Any(f => f.Code == GpuIsLost.Code);

    public static int Of(Outcome outcome) => outcome switch
    {
        Outcome.Done => Done,
        Outcome.RolledBack => RolledBack,
        _ => Stuck,
    };
}
