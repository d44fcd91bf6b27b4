using System.CommandLine;
using GpuHandoff.Goals;
using GpuHandoff.Linux;
using GpuHandoff.Runs;
using GpuHandoff.Screen;

namespace GpuHandoff.Commands;

/// <summary>The way out of every crash: what a killed run left is brought to one of its two ends.</summary>
static class RecoverCommand
{
    public static Command Build()
    {
        var (json, quiet, verbose) = (Options.Json(), Options.Quiet(), Options.Verbose());
        var noWait = new Option<bool>("--no-wait") { Description = "Leave a run alone that is at work now, instead of waiting for its end" };
        var unwedge = new Option<bool>("--unwedge")
        {
            Description = "Take the mark off a card that was stuck, where the call has come back since",
        };
        var command = new Command("recover", "Bring what a killed run left to an end: handed over completely, or back on the host")
        {
            noWait, unwedge, json, quiet, verbose,
        };
        command.SetAction(parsed => Act(
            parsed.GetValue(noWait), parsed.GetValue(unwedge), parsed.GetValue(json),
            new(null, [], DryRun: false, parsed.GetValue(json), parsed.GetValue(quiet), parsed.GetValue(verbose), Root: null)));
        return command;
    }

    static int Act(bool noWait, bool unwedge, bool json, Wish wish)
    {
        if (!RootUser.IsUs())
        {
            Say.Refused("not-root", "only root can recover a GPU", [], "use sudo", json);
            return ExitCode.Refused;
        }
        using var log = RunLog.Open();
        var witness = Witness.For(wish, log);
        using var signals = new StopSignals(witness);
        using var hand = Hand.Start(Environment.ProcessPath ?? "/proc/self/exe");
        var kernel = new LinuxKernel(hand);
        var ledger = Place.Ledger(root: null);
        // Read only where there is something to recover: the timer asks twice a minute, and a mistake in it is told each time.
        var policy = ledger.Unfinished() is [] ? PolicySet.Default : Policies.ForRecovery();
        var turn = new Turn(kernel, ledger, new FileLocks(kernel, FileLedger.DefaultOfThisBoot, hand), witness);
        IEnumerable<Ending> endings =
            [.. unwedge ? turn.Unwedge() : [], .. turn.Recover(policy, wait: !noWait, signals.Stop)];
        var worst = ExitCode.Done;
        var told = false;
        foreach (var ending in endings)
        {
            worst = Math.Max(worst, HandOver.Tell(ending, witness, json));
            told = true;
        }
        if (!told && !wish.Quiet)
            Say.Line("no run was left unfinished: nothing to do");
        return worst;
    }
}
