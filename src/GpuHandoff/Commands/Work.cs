using GpuHandoff.Kernel;
using GpuHandoff.Linux;
using GpuHandoff.Runs;
using GpuHandoff.Screen;

namespace GpuHandoff.Commands;

/// <summary>
/// What every run has that may change the machine: a log, an ear for signals, a helper process for the calls that may hang, locks.
/// </summary>
sealed class Work : IDisposable
{
    readonly RunLog _log;
    readonly StopSignals _signals;
    Hand? _hand;

    /// <summary>Open from here on; nothing is begun.</summary>
    /// <param name="voice">How it tells what it does.</param>
    public Work(Func<RunLog, Witness> voice)
    {
        _log = RunLog.Open();
        Witness = voice(_log);
        _signals = new(Witness);
    }

    public Witness Witness { get; }

    public CancellationToken Stop => _signals.Stop;

    /// <summary>
    /// Starts the helper process, which comes up while the caller looks around: when what can be refused without it is behind us.
    /// </summary>
    /// <param name="guards">Should we be killed, it starts <c>recover</c>: which itself must not be started over and over.</param>
    public (IKernel Kernel, ILocks Locks) Begin(bool guards = true)
    {
        _hand = Hand.Start(Environment.ProcessPath ?? "/proc/self/exe", guards);
        var kernel = new LinuxKernel(_hand);
        return (kernel, new FileLocks(kernel, FileLedger.DefaultOfThisBoot, _hand));
    }

    public Turn Turn(bool guards = true)
    {
        var (kernel, locks) = Begin(guards);
        return new(kernel, Place.Ledger(root: null), locks, Witness, Say.Footprint);
    }

    /// <summary>Says how they ended, and gives the worst exit code; null: there were none.</summary>
    public int? Tell(IEnumerable<Ending> endings, bool json)
    {
        int? worst = null;
        foreach (var ending in endings)
            worst = Math.Max(worst ?? ExitCode.Done, Tell(ending, json));
        return worst;
    }

    public int Tell(Ending ending, bool json)
    {
        switch (ending)
        {
            case Ending.Refused { Why: var why }:
                Witness.Refuses(why);
                Say.Refused(why, json);
                return ExitCode.Of(why);
            case Ending.Unanswered { Call: var silent }:
                if (json)
                    Say.Data(Report.Of(silent) with { Changed = Say.Footprint.Count == 0 ? null : Say.Footprint.Changes() });
                else
                    Witness.Ends(silent);
                return ExitCode.Stuck;
            case Ending.Ran(var plan, var outcome):
                Witness.Ends(plan, outcome);
                if (json)
                    Say.Data(Report.Of(plan, outcome));
                return ExitCode.Of(outcome);
            default:
                throw new ArgumentOutOfRangeException(nameof(ending));
        }
    }

    public void Dispose()
    {
        _hand?.Dispose();
        _signals.Dispose();
        _log.Dispose();
    }
}
