using System.CommandLine;
using System.CommandLine.Parsing;
using GpuHandoff.Goals;
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
        if (result.Tokens is [var token] && TargetOf(token.Value) is { } target)
            return target;
        result.AddError($"\"{string.Join(' ', result.Tokens)}\" is no target: take vfio or nvidia");
        return default;
    }

    /// <summary>Null: the word is no target.</summary>
    public static Target? TargetOf(string word) => word.Replace('-', '_') switch
    {
        "to_vfio" or "vfio" => Target.Vfio,
        "to_nvidia" or "nvidia" or "to_host" or "host" => Target.Host,
        _ => null,
    };

    /// <summary>The plan or the refusal, and nothing else.</summary>
    public static int Look(Target target, Wish wish)
    {
        if (Policies.For(wish, target) is not { } policy)
            return ExitCode.Refused;
        var (kernel, ledger) = (Place.ToLookAt(wish.Root), Place.Ledger(wish.Root));
        var machine = Surveyor.Survey(kernel, ledger.Homes(), target, ledger.Wedges(), ledger.Leases());
        Say.Damage(ledger);
        if (policy.Strangers(machine) is not [])
            machine = Surveyor.WithUuids(machine, kernel);
        switch (Selection.Of(machine, wish.Gpu))
        {
            case Selection.Unclear unclear:
                Say.Refused("which-gpu", unclear.What, unclear.Evidence, unclear.Hint, wish.Json);
                return ExitCode.Refused;
            case Selection.Chosen chosen:
                machine = Surveyor.WithLost(machine, chosen.Gpus.Select(g => g.Address), kernel);
                return Show(Planner.Plan(machine, new(target, [.. machine.Gpus.Where(g => chosen.Gpus.Any(c => c.Address == g.Address))]), policy), wish);
            default:
                throw new InvalidOperationException("a selection is clear or unclear");
        }
    }

    /// <summary>A plan or a refusal, in words or as data, with the exit code for it.</summary>
    public static int Show(Answer answer, Wish wish)
    {
        switch (answer)
        {
            case Answer.Planned { Plan: var plan } when wish.Json:
                Say.Data(Report.Of(plan));
                return ExitCode.Done;
            case Answer.Planned { Plan: var plan }:
                Output.Standard.Write(PlanText.Of(plan));
                return ExitCode.Done;
            default:
                Say.Refused((Answer.Refused)answer, wish.Json);
                return ExitCode.Of((Answer.Refused)answer);
        }
    }

    static int Act(Target target, Wish wish)
    {
        if (wish.DryRun)
            return Look(target, wish);
        if (!RootUser.IsUs())
        {
            Say.Refused("not-root", "only root can hand a GPU over", [], "use sudo", wish.Json);
            return ExitCode.Refused;
        }
        using var work = new Work(log => Witness.For(wish, log));
        if (Policies.For(wish, target, work.Witness.Refuses) is not { } policy)
            return ExitCode.Refused;
        return work.Tell(work.Turn().HandOver(target, wish.Gpu, policy, work.Stop), wish.Json);
    }
}
