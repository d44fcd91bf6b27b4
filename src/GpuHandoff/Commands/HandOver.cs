using System.CommandLine;
using System.CommandLine.Parsing;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Linux;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Screen;
using GpuHandoff.Survey;

namespace GpuHandoff.Commands;

/// <summary>The commands that change something, and the look at what they would change.</summary>
static class HandOver
{
    public static Command ToVfio() =>
        Acting(new("to_vfio", "Hand the GPU and its sibling functions to vfio-pci, ready for a VM") { Aliases = { "to-vfio" } }, Target.Vfio);

    public static Command ToHost() => Acting(
        new("to_nvidia", "Hand the GPU back to the host: to nvidia, or whichever drivers its functions had")
        {
            Aliases = { "to-nvidia", "to_host", "to-host" },
        },
        Target.Host);

    public static Command Either()
    {
        var target = new Argument<Target>("TARGET") { Description = "Where the GPU is to go", HelpName = "vfio|nvidia", CustomParser = ParseTarget };
        var switches = new Switches();
        var command = new Command("handoff", "The same by argument: handoff vfio, handoff nvidia") { target };
        switches.AddActingTo(command, leaves: true);
        command.SetAction(parsed => Act(parsed.GetRequiredValue(target), switches.Read(parsed)));
        return command;
    }

    static Command Acting(Command command, Target target)
    {
        var switches = new Switches();
        switches.AddActingTo(command, leaves: target == Target.Vfio);
        command.SetAction(parsed => Act(target, switches.Read(parsed)));
        return command;
    }

    public static Target ParseTarget(ArgumentResult result)
    {
        switch (result.Tokens is [var token] ? token.Value.Replace('-', '_') : "")
        {
            case "to_vfio" or "vfio":
                return Target.Vfio;
            case "to_nvidia" or "nvidia" or "to_host" or "host":
                return Target.Host;
            default:
                result.AddError($"\"{string.Join(' ', result.Tokens)}\" is no target: take vfio or nvidia");
                return default;
        }
    }

    /// <summary>The plan or the refusal, and nothing else.</summary>
    public static int Look(Target target, Wish wish) =>
        Decide(Place.ToLookAt(wish.Root), Place.Ledger(wish.Root), target, wish) switch
        {
            (Answer.Planned(var plan), _) => Shown(plan, wish),
            (_, var exit) => exit,
        };

    static int Act(Target target, Wish wish)
    {
        if (wish.DryRun)
            return Look(target, wish);
        if (!RootUser.IsUs())
        {
            Say.Refused("not-root", "only root can hand a GPU over", [], "use sudo", wish.Json);
            return ExitCode.Refused;
        }

        using var signals = new StopSignals();
        // The hand comes up while we look around.
        using var hand = Hand.Start(Environment.ProcessPath ?? "/proc/self/exe");
        var kernel = new LinuxKernel(hand);
        using var turn = RunLock.Take(
            kernel, wish.Policy.Limits.Total, holder => Say.Line($"waiting for {holder}, which is handing a GPU over"), signals.Stop);
        if (turn is null)
        {
            Say.Refused(
                "locked", "another hand-over has not ended", [RunLock.Holder(kernel)], "wait for it, or look into what it does", wish.Json);
            return ExitCode.Refused;
        }

        var ledger = Place.Ledger(root: null);
        return Decide(kernel, ledger, target, wish) switch
        {
            (Answer.Planned(var plan), _) => Carry(kernel, ledger, plan, wish, signals.Stop),
            (_, var exit) => exit,
        };
    }

    static (Answer?, int Exit) Decide(IKernel kernel, ILedger ledger, Target target, Wish wish)
    {
        var machine = Surveyor.Survey(kernel, ledger.Homes(), target);
        var selection = Selection.Of(machine, wish.Gpu);
        if (selection is Selection.Unclear unclear)
        {
            Say.Refused("which-gpu", unclear.What, unclear.Evidence, unclear.Hint, wish.Json);
            return (null, ExitCode.Refused);
        }
        var answer = Planner.Plan(machine, new(target, ((Selection.Chosen)selection).Gpus), wish.Policy);
        if (answer is Answer.Refused refused)
        {
            Say.Refused(refused, wish.Json);
            return (null, ExitCode.Refused);
        }
        return (answer, ExitCode.Done);
    }

    static int Shown(Plan plan, Wish wish)
    {
        if (wish.Json)
            Say.Data(Report.Of(plan));
        else
            Output.Standard.Write(PlanText.Of(plan));
        return ExitCode.Done;
    }

    static int Carry(IKernel kernel, ILedger ledger, Plan plan, Wish wish, CancellationToken stop)
    {
        var witness = Witness.For(wish);
        witness.Begins(plan);
        var outcome = new Executor(kernel, ledger, witness, wish.Policy.Limits).Run(plan, stop);
        witness.Ends(plan, outcome);
        if (wish.Json)
            Say.Data(Report.Of(plan, outcome));
        return ExitCode.Of(outcome);
    }
}
