using System.Collections.Immutable;
using System.CommandLine;
using System.CommandLine.Parsing;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Linux;
using GpuHandoff.Runs;
using GpuHandoff.Screen;

namespace GpuHandoff.Commands;

/// <summary>The way home from every end of a VM that nobody told us of; and from every run of ours that did not end.</summary>
static class ReconcileCommand
{
    public static Command Build()
    {
        var (json, quiet, verbose) = (Options.Json(), Options.Quiet(), Options.Verbose());
        var noWait = new Option<bool>("--no-wait")
        {
            Description = "Leave alone what is at work now, and what was tried in vain before: for a timer",
        };
        var watch = new Option<Guest?>("--watch")
        {
            Description = "Stay with this VM until what is lent to it has come home: what the hook leaves behind at each start",
            HelpName = "MANAGER:VM",
            CustomParser = Watched,
        };
        var command = new Command("reconcile", "Take back what is lent to VMs that have ended, and end what a killed run left")
        {
            noWait, watch, json, quiet, verbose,
        };
        command.SetAction(parsed => Act(
            parsed.GetValue(watch), parsed.GetValue(noWait),
            new() { Json = parsed.GetValue(json), Quiet = parsed.GetValue(quiet), Verbose = parsed.GetValue(verbose) }));
        return command;
    }

    static Guest? Watched(ArgumentResult result)
    {
        var text = result.Tokens[0].Value;
        if (Guest.Of(text) is { } guest)
            return guest;
        result.AddError($"\"{text}\" is no VM: it is named with its manager, as proxmox:101 or libvirt:win11");
        return null;
    }

    static int Act(Guest? guest, bool noWait, Wish wish)
    {
        if (!RootUser.IsUs())
        {
            Say.Refused("not-root", "only root can take a GPU back", [], "use sudo", wish.Json);
            return ExitCode.Refused;
        }
        // To look at VMs: neither a helper process nor a lock, for the timer comes every few seconds and a watch lasts for weeks.
        var (looking, ledger) = (new LinuxKernel(hand: null), Place.Ledger(root: null));
        if (guest is not null)
        {
            // A signal ends it at once while it sleeps; at work it ends what it has begun.
            var worst = ExitCode.Done;
            new Watch(looking, ledger, () =>
            {
                var ended = Run(wish, (turn, policy, stop) => turn.Reconcile(policy, waits: false, stop, guest));
                worst = Math.Max(worst, ended ?? ExitCode.Done);
                return ended is not null;
            }, tells: what => Say.Line($"warning: {what}")).Over(guest, CancellationToken.None);
            return worst;
        }
        if (!Turn.IsAllWell(looking, ledger, waits: !noWait) && Run(wish, (turn, policy, stop) => turn.MakeRounds(policy, waits: !noWait, stop)) is { } ended)
            return ended;
        if (!wish.Quiet)
            Say.Line("nothing is lent to a VM that is gone, and no run was left unfinished: nothing to do");
        return ExitCode.Done;
    }

    /// <summary>Null: there was nothing to do.</summary>
    static int? Run(Wish wish, Func<Turn, PolicySet, CancellationToken, ImmutableArray<Ending>> act)
    {
        using var work = new Work(log => Witness.For(wish, log));
        return work.Tell(act(work.Turn(), Policies.ForRecovery(), work.Stop), wish.Json);
    }
}
