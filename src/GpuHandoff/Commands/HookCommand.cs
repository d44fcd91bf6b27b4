using System.CommandLine;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Linux;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Screen;
using GpuHandoff.Survey;

namespace GpuHandoff.Commands;

/// <summary>
/// What Proxmox calls at every start and end of a VM, as <c>NAME VMID PHASE</c> through a link in a snippets folder, or as
/// <c>gpu-handoff hook VMID PHASE</c> by another script.
/// </summary>
static class HookCommand
{
    /// <summary>Set by Proxmox for every hook, and empty but on the target of a migration.</summary>
    const string MigratedFrom = "PVE_MIGRATED_FROM";

    public static Command Build()
    {
        var (dryRun, root, json) = (Options.DryRun(), Options.Root(), Options.Json());
        var vm = new Argument<string>("VMID") { Description = "The VM's number" };
        var phase = new Argument<string>("PHASE") { Description = "pre-start, post-start, pre-stop or post-stop" };
        var command = new Command("hook", "Do what a start or an end of a Proxmox VM asks for; Proxmox calls this itself") { vm, phase, dryRun, json, root };
        command.Validators.Add(result =>
        {
            if ((result.GetResult(root) is not null || result.GetResult(json) is not null) && !result.GetValue(dryRun))
                result.AddError("--root and --json go with --dry-run: a recorded machine can only be looked at");
        });
        command.SetAction(parsed => Run(
            parsed.GetRequiredValue(vm), parsed.GetRequiredValue(phase),
            parsed.GetValue(dryRun) ? new() { DryRun = true, Json = parsed.GetValue(json), Root = parsed.GetValue(root) } : null));
        return command;
    }

    /// <summary>Whether arguments are Proxmox's: no command of ours is a number.</summary>
    public static bool IsCall(string[] arguments) => arguments is [var vm, var phase] && IsNumber(vm) && phase is [>= 'a' and <= 'z', ..];

    static bool IsNumber(string text) => text is [>= '0' and <= '9', ..] && text.AsSpan().IndexOfAnyExceptInRange('0', '9') < 0;

    /// <summary>One call, by the shortest way to its end.</summary>
    /// <param name="look">Null: the real thing.</param>
    public static int Run(string vm, string phase, Wish? look = null)
    {
        if (look is null && IsNoneOfOurs(vm, phase))
            return ExitCode.Done;
        return Judge(vm, phase) is { } call ? Run(call, look) : ExitCode.Usage;
    }

    /// <summary>Most VMs have no GPU. For them it is decided by what costs least, before anything else comes up.</summary>
    static bool IsNoneOfOurs(string vm, string phase)
    {
        if (vm is not [>= '1' and <= '9', _, _, ..] || !IsNumber(vm) || vm.Length > 9)
            return false;
        return phase switch
        {
            "pre-start" => string.IsNullOrEmpty(Environment.GetEnvironmentVariable(MigratedFrom))
                && !Linux.Glance.MayHaveDevices($"/etc/pve/qemu-server/{vm}.conf") && !Linux.Glance.MayBeLent(FileLedger.DefaultFolder, vm),
            "post-start" or "post-stop" => !Linux.Glance.MayBeLent(FileLedger.DefaultFolder, vm),
            "pre-stop" => true,
            _ => false,
        };
    }

    /// <summary>Null: the words are no call, and that has been said.</summary>
    static HookCall? Judge(string vm, string word)
    {
        if (!ProxmoxNode.TryId(vm, out var id))
        {
            Say.Line($"\"{vm}\" is no number of a VM: Proxmox counts from {ProxmoxNode.LeastId}");
            Say.Line("hint: gpu-handoff hook 101 pre-start --dry-run");
            return null;
        }
        if (HookCall.PhaseOf(word) is not { } phase)
        {
            Say.Line($"\"{word}\" is no phase of a hook: {string.Join(", ", HookCall.Phases)}");
            Say.Line(HookCall.Meant(word) is { } meant ? $"hint: did you mean {meant}?" : "hint: gpu-handoff --help");
            return null;
        }
        if (phase == HookPhase.Later)
            Say.Line($"the phase {word} is not known here: nothing to do");
        return new(id, phase, Environment.GetEnvironmentVariable(MigratedFrom));
    }

    static int Run(HookCall call, Wish? look)
    {
        if (look?.Root is null && !RootUser.IsUs())
        {
            Say.Refused("not-root", "only root can read what Proxmox knows of its VMs", [], "use sudo", look?.Json ?? false);
            return look is null ? ExitCode.Refused : ExitCode.Usage;
        }
        var ledger = Place.Ledger(look?.Root);
        try
        {
            var errand = HookErrand.Of(call, Place.ToLookAt(look?.Root), ledger);
            return look is null ? Run(errand, ledger) : Look(errand, look, ledger);
        }
        catch (Exception refused) when (call.Phase == HookPhase.PostStart && refused is LedgerRefused or KernelRefused or KernelSilent)
        {
            // The VM runs, and whatever was to be noted of it changes nothing for it.
            Say.Line($"warning: {refused.Message}");
            return ExitCode.Done;
        }
        catch (KernelSilent silent)
        {
            Say.Trouble(
                look is null ? "the kernel does not answer a look" : "nobody can tell", [silent.Message],
                "something hangs: look at dmesg", Say.Footprint.State());
            return look is null ? ExitCode.Stuck : ExitCode.Usage;
        }
    }

    static int Run(HookErrand errand, ILedger ledger)
    {
        switch (errand)
        {
            case HookErrand.None { Why: var why }:
                foreach (var line in why?.Split('\n') ?? [])
                    Say.Line(line);
                return ExitCode.Done;
            case HookErrand.Refused { Why: var why }:
                using (var log = RunLog.Open())
                    Witness.ForTask(log).Refuses(why);
                Say.Refused(why, json: false);
                return ExitCode.Refused;
            default:
                return Act(errand, ledger);
        }
    }

    static int Act(HookErrand errand, ILedger ledger)
    {
        using var work = new Work(Witness.ForTask);
        if (Policies.For(new(), errand is HookErrand.HandOver ? Target.Vfio : Target.Host, work.Witness.Refuses) is not { } policy)
            return ExitCode.Refused;
        var (kernel, locks) = work.Begin();
        var turn = new Turn(kernel, ledger, locks, work.Witness, Say.Footprint);
        var code = work.Tell(new Hook(kernel, ledger, turn, work.Witness).Carry(errand, policy, work.Stop), json: false) ?? ExitCode.Done;
        if (errand is HookErrand.Note { Guest: var guest })
        {
            // Two VMs that got each other's devices have new watches; whether the one of the start has come up can be seen by now.
            work.Witness.TellOfWatches(isLent: true);
            if (Watchdog.Missing(guest) is { } nobody)
                work.Witness.Warns(nobody);
        }
        return code;
    }

    /// <summary>What would happen, for a person who wants to know before a start: 0 it would go, 1 it would not, 2 nobody can tell.</summary>
    static int Look(HookErrand errand, Wish wish, ILedger ledger)
    {
        var kernel = Place.ToLookAt(wish.Root);
        var (target, none) = (errand is HookErrand.HandOver ? Target.Vfio : Target.Host, "nothing to do: no GPU of this host is concerned");
        switch (errand)
        {
            case HookErrand.Refused { Why: var why }:
                Say.Refused(why, wish.Json);
                return ExitCode.Refused;
            case HookErrand.None { Why: var why }:
                return Nothing(why ?? none, wish);
            case HookErrand.HandOver { Gpus: [], Left: var left }:
                return Nothing($"what is still lent to it would come home: {string.Join(", ", left.Select(l => l.Gpu))}", wish);
            case HookErrand.Note { Leases: var leases }:
                return Nothing($"{string.Join(", ", leases.Select(l => l.Gpu))} is lent to it: the process would be noted, and its threads pinned if the policy says so", wish);
            case HookErrand.HandBack { ComesBack: not null } end when Policies.For(wish.Root, wish.Json) is { } said && end.WhyKept(said) is { } why:
                return Nothing($"the GPU would stay on vfio-pci: {why}", wish);
        }
        if (Policies.For(wish, target) is not { } policy)
            return ExitCode.Refused;
        var machine = Surveyor.Survey(kernel, ledger.Homes(), target, ledger.Wedges(), ledger.Leases());
        Say.Damage(ledger);
        if (policy.Strangers(machine) is not [])
            machine = Surveyor.WithUuids(machine, kernel);
        machine = Surveyor.WithLost(machine, Hook.Gpus(errand), kernel);
        return HandOver.Show(Hook.Plan(errand, policy, machine), wish) == ExitCode.Done ? ExitCode.Done : ExitCode.Refused;
    }

    static int Nothing(string why, Wish wish)
    {
        if (wish.Json)
            Say.Data(new Report("done", why));
        else
            Say.Line(why, Output.Standard);
        return ExitCode.Done;
    }
}
