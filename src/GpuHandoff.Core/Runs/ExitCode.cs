namespace GpuHandoff.Runs;

/// <summary>What hooks and scripts depend on.</summary>
public static class ExitCode
{
    public const int Done = 0;
    public const int Refused = 1;
    public const int Usage = 2;
    public const int RolledBack = 3;
    public const int Stuck = 4;

    public static int Of(Outcome outcome) => outcome switch
    {
        Outcome.Done => Done,
        Outcome.RolledBack => RolledBack,
        _ => Stuck,
    };
}
