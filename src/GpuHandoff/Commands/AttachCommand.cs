using System.CommandLine;
using System.CommandLine.Parsing;
using GpuHandoff.Goals;
using GpuHandoff.Linux;
using GpuHandoff.Plans;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Screen;
using GpuHandoff.Simulation;

namespace GpuHandoff.Commands;

/// <summary>A GPU and the hook for a VM of Proxmox, and both taken back.</summary>
static class AttachCommand
{
    // Where make install puts it: of a recorded machine nobody knows.
    const string UsualProgram = "/usr/local/sbin/gpu-handoff";

    public static Command Attach()
    {
        var (vm, gpu, dryRun, json, quiet, verbose, root) =
            (Vm(), Options.Gpu(), Options.DryRun(), Options.Json(), Options.Quiet(), Options.Verbose(), Options.Root());
        var mapping = new Option<string?>("--mapping")
        {
            Description = "Give the GPU through a resource mapping of the cluster: a name that each node has for its own cards",
            HelpName = "NAME",
        };
        var primary = new Option<bool>("--primary") { Description = "Make the GPU the VM's first display (x-vga=1), with no other one beside it" };
        var command = new Command("attach", "Set a VM of Proxmox up: the hookscript and a hostpci line for the GPU, through qm set")
        {
            vm, gpu, mapping, primary, dryRun, json, quiet, verbose, root,
        };
        command.SetAction(parsed =>
        {
            var asked = new SetUpWish(parsed.GetRequiredValue(vm), parsed.GetValue(gpu), parsed.GetValue(mapping), parsed.GetValue(primary));
            var wish = new Wish
            {
                Gpu = asked.Gpu,
                DryRun = parsed.GetValue(dryRun),
                Json = parsed.GetValue(json),
                Quiet = parsed.GetValue(quiet),
                Verbose = parsed.GetValue(verbose),
                Root = parsed.GetValue(root),
            };
            // What the files say decides what a hand-over refuses, and so what attach does.
            return Policies.For(wish, Target.Vfio) is not { } policy ? ExitCode.Refused
                : Run(wish, s => s.WouldAttach(asked, policy), (s, stop) => s.Attach(asked, policy, stop), asked.Vm);
        });
        return command;
    }

    public static Command Detach()
    {
        var (vm, dryRun, json, quiet, verbose, root) = (Vm(), Options.DryRun(), Options.Json(), Options.Quiet(), Options.Verbose(), Options.Root());
        var command = new Command("detach", "Take from a VM exactly what attach gave it, and nothing that was changed since")
        {
            vm, dryRun, json, quiet, verbose, root,
        };
        command.SetAction(parsed => Run(
            new Wish
            {
                DryRun = parsed.GetValue(dryRun),
                Json = parsed.GetValue(json),
                Quiet = parsed.GetValue(quiet),
                Verbose = parsed.GetValue(verbose),
                Root = parsed.GetValue(root),
            },
            s => s.WouldDetach(parsed.GetRequiredValue(vm)), (s, stop) => s.Detach(parsed.GetRequiredValue(vm), stop), parsed.GetRequiredValue(vm)));
        return command;
    }

    static Argument<int> Vm() => new("VMID") { Description = "The VM's number: 101", CustomParser = VmId };

    static int VmId(ArgumentResult result)
    {
        if (result.Tokens is [var token] && ProxmoxNode.TryId(token.Value, out var vm))
            return vm;
        result.AddError($"\"{string.Join(' ', result.Tokens)}\" is no VM's number: Proxmox counts from {ProxmoxNode.LeastId}");
        return default;
    }

    static int Run(Wish wish, Func<SetUp, Answer> look, Func<SetUp, CancellationToken, Ending> act, int vm)
    {
        if (wish.Root is null && !RootUser.IsUs())
        {
            // pmxcfs lets only root and the web server read a configuration: for others there would be no VM at all.
            Say.Refused("not-root", $"only root can {(wish.DryRun ? "read what" : "change what")} Proxmox knows of its VMs", [], "use sudo", wish.Json);
            return ExitCode.Refused;
        }
        if (wish.DryRun || wish.Root is not null)
            return Look(wish, look);
        using var work = new Work(log => Witness.For(wish, log));
        // What a killed one has left is in the record of what the VM got; recover knows nothing of that.
        var (kernel, locks) = work.Begin(guards: false);
        var setUp = new SetUp(kernel, Place.Ledger(root: null), new MemoryLedger(), Place.Attachments(root: null), locks, work.Witness, Program(), Say.Footprint);
        return Tell(act(setUp, work.Stop), work, wish, vm);
    }

    static int Look(Wish wish, Func<SetUp, Answer> look)
    {
        var kernel = Place.ToLookAt(wish.Root);
        var setUp = new SetUp(
            kernel, Place.Ledger(wish.Root), new MemoryLedger(), Place.Attachments(wish.Root), new MemoryLocks(new(), "us"),
            new Witness(Output.Error, steps: false, quiet: true, live: false), wish.Root is null ? Program() : UsualProgram);
        switch (look(setUp))
        {
            case Answer.Planned { Plan: var plan } when wish.Json:
                Say.Data(Report.Of(plan));
                return ExitCode.Done;
            case Answer.Planned { Plan: var plan }:
                Output.Standard.Write(PlanText.Of(plan));
                return ExitCode.Done;
            case var refused:
                Say.Refused((Answer.Refused)refused, wish.Json);
                return ExitCode.Refused;
        }
    }

    /// <summary>The kernel's word for what runs here: no link is in it.</summary>
    static string Program() => Environment.ProcessPath ?? UsualProgram;

    static int Tell(Ending ending, Work work, Wish wish, int vm)
    {
        if (ending is Ending.Ran { Outcome: Outcome.RolledBack or Outcome.Stuck } ran && !wish.Json)
        {
            var (what, evidence, hint, state) = ran.Outcome switch
            {
                Outcome.RolledBack back => (
                    back.What, back.Cause is { } cause ? [cause.Reason] : (IReadOnlyList<string>)[],
                    "the words above are those of the program that refused; when that is mended, run it again", "everything is as it was before"),
                Outcome.Stuck stuck => (
                    stuck.What, [.. stuck.Failures.Select(f => $"{f.Step.Say()}: {f.Reason}"), .. stuck.NotUndone.Select(s => $"not undone: {s.Say()}")],
                    $"look at qm config {vm}; gpu-handoff detach {vm} takes back what is left of it", "not everything could be undone"),
                _ => throw new InvalidOperationException("neither rolled back nor stuck"),
            };
            foreach (var line in Say.Lines(what, evidence, hint, state))
                work.Witness.Says(line);
            return ExitCode.Of(ran.Outcome);
        }
        return work.Tell(ending, wish.Json);
    }
}
