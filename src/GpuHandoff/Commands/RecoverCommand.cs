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
            parsed.GetValue(noWait), parsed.GetValue(unwedge),
            new() { Json = parsed.GetValue(json), Quiet = parsed.GetValue(quiet), Verbose = parsed.GetValue(verbose) }));
        return command;
    }

    static int Act(bool noWait, bool unwedge, Wish wish)
    {
        if (!RootUser.IsUs())
        {
            Say.Refused("not-root", "only root can recover a GPU", [], "use sudo", wish.Json);
            return ExitCode.Refused;
        }
        using var work = new Work(log => Witness.For(wish, log));
        // Read only where there is something to recover: the timer asks twice a minute, and a mistake in it is told each time.
        var policy = Place.Ledger(root: null).Unfinished() is [] ? PolicySet.Default : Policies.ForRecovery();
        var turn = work.Turn(guards: false);
        IEnumerable<Ending> endings = [.. unwedge ? turn.Unwedge() : [], .. turn.Recover(policy, wait: !noWait, work.Stop)];
        if (work.Tell(endings, wish.Json) is { } worst)
            return worst;
        if (!wish.Quiet)
            Say.Line("no run was left unfinished: nothing to do");
        return ExitCode.Done;
    }
}
