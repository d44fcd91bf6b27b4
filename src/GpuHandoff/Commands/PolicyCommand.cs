using System.Collections.Immutable;
using System.CommandLine;
using GpuHandoff.Goals;
using GpuHandoff.Linux;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Screen;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Commands;

/// <summary>What the policy's files come to, and whether one of them is right.</summary>
static class PolicyCommand
{
    public static Command Build() => new("policy", "Show the policy that holds, or check a policy file") { Show(), Check() };

    static Command Show()
    {
        var (gpu, root, json) = (Options.Gpu(), Options.Root(), Options.Json());
        var command = new Command("show", "Print every key with its value and where that comes from, as a policy file") { gpu, json, root };
        command.SetAction(parsed => Show(parsed.GetValue(gpu), parsed.GetValue(json), parsed.GetValue(root)));
        return command;
    }

    static Command Check()
    {
        var json = Options.Json();
        var file = new Argument<string>("FILE") { Description = "The policy file to check; it may be anywhere" };
        var command = new Command("check", "Say what is wrong with a policy file, all of it") { file, json };
        command.SetAction(parsed => Check(parsed.GetRequiredValue(file), parsed.GetValue(json)));
        return command;
    }

    static int Show(string? selector, bool json, DirectoryInfo? root)
    {
        if (Policies.For(root, json) is not { } said)
            return ExitCode.Refused;
        // Which card a UUID means may only be known to the ledger, and that is root's.
        ILedger ledger = root is null && !RootUser.IsUs() ? new MemoryLedger() : Place.Ledger(root);
        var machine = Surveyor.Survey(Place.ToLookAt(root), ledger.Homes(), target: null, ledger.Wedges());
        ImmutableArray<Gpu>? chosen = null;
        if (selector is not null)
        {
            switch (Selection.Of(machine, selector))
            {
                case Selection.Unclear unclear:
                    Say.Refused("which-gpu", unclear.What, unclear.Evidence, unclear.Hint, json);
                    return ExitCode.Refused;
                case Selection.Chosen { Gpus: var gpus }:
                    chosen = gpus;
                    break;
            }
        }
        if (json)
            Say.Data(PolicyReport.Of(said, machine, chosen));
        else
            Output.Standard.Write(PolicyYaml.Of(said, machine, chosen));
        foreach (var lost in said.Unmatched(machine))
            Say.Line(lost);
        return ExitCode.Done;
    }

    static int Check(string file, bool json)
    {
        var errors = PolicyFolder.Check(file);
        if (errors is not [])
        {
            if (json)
                Say.Data(Report.Of(Policies.Of(errors)));
            else
                Tell(errors);
            return ExitCode.Refused;
        }
        if (json)
            Say.Data(new Report("done", $"{file} is fine"));
        else
            Say.Line($"{file} is fine", Output.Standard);
        if (PolicyFolder.NotYetTrusted(file) is { } why)
            Say.Line($"note: {why}; to count it must be root's in {PolicyFolder.Default}: sudo install -o root -g root -m 0644 {file} {PolicyFolder.Default}/{PolicyFolder.Main}");
        return ExitCode.Done;
    }

    static void Tell(ImmutableArray<PolicyError> errors)
    {
        foreach (var error in errors)
            Say.Trouble(error.ToString(), [], error.Hint, null);
    }
}
