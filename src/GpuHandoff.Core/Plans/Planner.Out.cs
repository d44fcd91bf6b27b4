using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Steps;

namespace GpuHandoff.Plans;

// The way to the VM.
public static partial class Planner
{
    static Plan Out(Machine machine, Goal goal, Policy policy, FreeBy way, Stopping stopping)
    {
        var everything = goal.Gpus.SelectMany(g => Leaving(g, policy)).DistinctBy(f => f.Address).ToImmutableArray();
        var leaving = everything.Where(f => f.Owner != Owner.VfioKept || Resizes(f, PolicyOf(f, goal, policy))).ToImmutableArray();
        var onNvidia = leaving.Where(f => f.Owner.Driver == "nvidia").ToImmutableArray();
        var unload = way == FreeBy.Unload && onNvidia is not [];
        var notes = ImmutableArray.CreateBuilder<string>();
        var phases = new Phases();

        if (leaving is not [] && !machine.Drivers.Contains(Owner.Vfio))
            phases.Add("prepare", new LoadModule("vfio_pci", [], Stays: true));

        // After what may fail without a loss, and before anything of the card is touched.
        foreach (var stop in stopping.Steps)
            phases.Add("users", stop);
        if (stopping.Users is not [])
        {
            // fbcon lets go of its module later, when the console is detached.
            ImmutableArray<string> free = unload ? [.. Stopping.MustBeFree(machine).Where(m => TextConsole.HoldsOf(m, machine, goal.Gpus) == 0)] : [];
            phases.Add("users", new AwaitRelease(free, stopping.Users));
        }
        if (stopping.Ended() is { } ended)
            notes.Add(ended);
        notes.AddRange(stopping.Notes);
        if (machine.Unseen is not [] && leaving is not [])
            notes.Add(NotSeen(machine));
        if (machine.SystemdIsSilent && leaving is not [])
            notes.Add(Silent("stopped"));

        // Before the first driver lets go: functions that idle without one all at once have not woken up again.
        if (Hold(everything) is { } hold)
            phases.Add("power", hold);

        // Siblings first: the one that might block (an open sound card) blocks before the card itself is touched.
        foreach (var function in leaving.Where(f => !f.Class.IsDisplay()))
            phases.Add("siblings", new Rebind(function.Address, function.Owner, Owner.VfioKept));

        // Last before the cards themselves: as long as something else may still fail, the terminals stay readable.
        LeaveConsole(phases, notes, machine, goal, policy, [.. leaving.Select(f => f.Address)]);

        // A card without a driver, or on another one than nvidia: no modules of ours to think of.
        foreach (var function in leaving.Where(f => f.Class.IsDisplay() && !onNvidia.Contains(f)))
            Lend(phases, function, function.Owner, goal, policy);

        if (unload)
        {
            if (machine.Nodes is not [])
                phases.Add("release", RemoveNodes(machine.Nodes, goal, onNvidia));
            foreach (var module in NvidiaStack.Loaded(machine).Where(m => m.Name != "nvidia"))
                phases.Add("release", new UnloadModule(module.Name, module.Parameters));
            phases.Add("release", new UnloadDriver("nvidia", [], [.. onNvidia.Select(f => new FunctionHome(f.Address, f.Owner))])
            {
                Ladders = Ladders(goal, policy, onNvidia),
            });
            foreach (var function in onNvidia)
                Lend(phases, function, new(null, Owner.Vfio), goal, policy);
        }
        else
        {
            var drm = machine.Module("nvidia_drm");
            var reload = goal.Gpus.Any(g => DrmHoldsTheCard.DrmMustGo(new(machine, g, goal, policy, way)));
            if (reload)
                phases.Add("release", new UnloadModule(drm.Name, drm.Parameters));
            foreach (var function in onNvidia)
            {
                if (machine.HasNvidiaSmi)
                    phases.Add("release", new Drain(function.Address, On: true));
                // Who comes now finds no node: a first open that is on its way is all that the last look still has to see. After the
                // drain, because NVIDIA's programs make missing nodes again (nvidia-modprobe-utils.c:nvidia_mknod).
                if (goal.Gpus.FirstOrDefault(g => g.Address == function.Address)?.Minor is { } minor
                    && machine.Nodes.FirstOrDefault(n => n.Path == $"/dev/nvidia{minor}") is { } node)
                {
                    phases.Add("release", RemoveNodes([node], goal, onNvidia));
                }
                phases.Add("release", new AwaitIdle(function.Address));
                Lend(phases, function, function.Owner, goal, policy);
            }
            // A run that was killed may have taken nvidia_drm from the cards that stay.
            var lost = drm.State == ModuleState.Absent
                ? goal.Gpus.Select(machine.HomeOf).OfType<Home>().SelectMany(h => h.Modules).FirstOrDefault(m => m.Name == drm.Name)
                : null;
            if ((reload || lost is not null) && OthersOnNvidia(machine, goal))
            {
                phases.Add("modules", new LoadModule(drm.Name, lost?.Parameters ?? drm.Parameters));
                notes.Add(reload
                    ? "nvidia_drm would hold the card, so it is unloaded around the unbind and loaded again for the other cards"
                    : "an earlier run took nvidia_drm down and did not end: it is loaded again for the other cards");
            }
        }

        notes.AddRange(goal.Gpus.Where(g => policy.For(g).ResetFirst && LadderOf(g, policy) is null)
            .Select(g => $"{g.Slot()} is not reset: the kernel offers no way that the policy allows and that hits nothing else"));
        notes.AddRange(goal.Gpus.Where(g => policy.For(g).ResetFirst && !leaving.Any(f => f.Address == g.Address))
            .Select(g => $"{g.Slot()} is not reset: it is on {Owner.Vfio} already, which resets it when a VM opens it"));
        // They serve the cards that stay, too. What an earlier, unfinished run had stopped counts as well.
        foreach (var start in stopping.Serving.Concat(leaving is [] || !OthersOnNvidia(machine, goal) ? [] : StoppedBefore(machine, goal)).Distinct())
            phases.Add("users", start);

        var names = Names(goal.Gpus);
        return new(Target.Vfio, Addresses(goal), phases.IsEmpty()
            ? $"{names} is on {Owner.Vfio} already: nothing to do"
            : $"hand {names} over to {Owner.Vfio}{How(machine, goal, onNvidia, way)}", phases.Build())
        {
            BootId = machine.BootId,
            Notes = notes.ToImmutable(),
            Keep = [.. goal.Gpus.Select(g => Keep(machine, g, goal, policy, stopping)).OfType<Home>()],
        };
    }

    static RemoveNodes RemoveNodes(ImmutableArray<NamedNode> nodes, Goal goal, ImmutableArray<PciFunction> onNvidia)
    {
        ImmutableArray<OwnNode> own =
        [
            .. from gpu in goal.Gpus
               where gpu.Minor is not null && onNvidia.Any(f => f.Address == gpu.Address)
               let node = nodes.FirstOrDefault(n => n.Path == $"/dev/nvidia{gpu.Minor}")
               where node is not null
               select new OwnNode(gpu.Address, node),
        ];
        return new(nodes) { Own = own is [] ? default : own };
    }

    /// <summary>
    /// Named, and no reason to refuse by itself: any user can make a process that takes too long to look at. What counts for an unbind
    /// is what the kernel counts, and the checks refuse where that is not explained.
    /// </summary>
    static string NotSeen(Machine machine)
    {
        const int shown = 5;
        var more = machine.Unseen.Length > shown ? $" and {machine.Unseen.Length - shown} more" : "";
        return $"could not be looked at, so they are not among the users that are named: process {string.Join(", ", machine.Unseen.Take(shown))}{more}; "
            + "the kernel's own counts decide whether the GPU is free";
    }

    /// <summary>The text console off cards that it is on alone, and the firmware's picture out of their memory.</summary>
    static void LeaveConsole(
        Phases phases, ImmutableArray<string>.Builder notes, Machine machine, Goal goal, Policy policy, ImmutableArray<PciAddress> leaving)
    {
        var cards = goal.Gpus.Where(g => leaving.Contains(g.Address)).ToList();
        var firmware = cards.SelectMany(g => TextConsole.FirmwareOn(machine, g)).ToList();
        if (cards is not [] && TextConsole.On(machine, goal.Gpus) is { } console && console.IsOnFrameBuffers())
        {
            // A detached console that cannot be bound again is lost to a rollback, and it moves by itself when its frame buffer goes
            // (fbcon.c:fbcon_fb_unregistered). So it is detached by hand only where that can be undone, or a module waits for it.
            if (TextConsole.CanBindAgain(machine) || TextConsole.Holds(machine, goal.Gpus) || firmware is not [])
                phases.Add("console", new DetachConsole(console.Name, Addresses(goal), [.. firmware.Select(d => d.Device)]));
            else
                notes.Add($"the text console leaves with the frame buffer of {string.Join(", ", cards.Select(c => c.Slot()))}: this kernel could not bind it again by hand, because no system console driver is left (usual after a boot in VGA text mode)");
        }
        // fbcon first: a picture that is taken from under it has crashed a host.
        foreach (var display in firmware)
            phases.Add("console", new ReleaseFirmwareDisplay(display));
        foreach (var card in cards.Where(g => policy.For(g).LoseConsole))
        {
            if (TextConsole.LostWith(machine, card, goal.Gpus) is { } lost)
                notes.Add($"the host's text console, on {lost}, ends when {Owner.Vfio} gets {card.Slot()}, and nothing but a boot brings it back: agreed to (--lose-console)");
        }
    }

    /// <summary>The power settings that a lent card keeps; null where it has them, or the kernel has no such files.</summary>
    static HoldPower? Hold(IEnumerable<PciFunction> functions)
    {
        ImmutableArray<PowerChange> changes =
            [.. from f in functions let now = f.Power where now is not null && now != now.Held() select new PowerChange(f.Address, now, now.Held())];
        return changes is [] ? null : new(changes);
    }

    /// <summary>The card itself to vfio-pci, through a moment without any driver where its memory window is resized.</summary>
    static void Lend(Phases phases, PciFunction function, Owner from, Goal goal, Policy policy)
    {
        var ladder = LadderOf(goal.Gpus.FirstOrDefault(g => g.Address == function.Address), policy);
        policy = PolicyOf(function, goal, policy);
        // vfio-pci resets a card when a VM opens it and when it closes it: on a card that is there already no second one is due.
        var reset = policy.ResetFirst && ladder is not null && !function.IsOnVfio();
        if (Resizes(function, policy))
        {
            var none = new Owner(null, Owner.Vfio);
            if (from != none)
                phases.Add("bind", new Rebind(function.Address, from, none) { Ladder = Mending(ladder, from) });
            phases.Add("bind", new ResizeBar(function.Address, function.Bar1(), policy.Bar1!.Value));
            from = none;
        }
        phases.Add("bind", new Rebind(function.Address, from, Owner.VfioKept)
        {
            Ladder = reset ? ladder : Mending(ladder, from),
            ResetFirst = reset,
        });
    }

    /// <summary>NVIDIA's driver is what a reset may help; others are asked twice.</summary>
    static Ladder? Mending(Ladder? ladder, Owner home) => home.Driver == "nvidia" ? ladder : null;

    static string How(Machine machine, Goal goal, ImmutableArray<PciFunction> onNvidia, FreeBy way) => (onNvidia, way) switch
    {
        ([], _) => "",
        (_, FreeBy.Unload) => " by unloading the nvidia modules: no other GPU needs them",
        _ when OthersOnNvidia(machine, goal) => " by unbinding it alone: other GPUs stay on nvidia",
        _ when DrmHoldsTheCard.DrmMustGo(new(machine, goal.Gpus[0], goal, Policy.Default, way)) =>
            " by unbinding it alone: nvidia_drm goes, because it would hold the card; the other modules stay",
        _ => " by unbinding it alone: the nvidia modules stay loaded",
    };

    static IEnumerable<Step> StoppedBefore(Machine machine, Goal goal) => goal.Gpus.Select(machine.HomeOf).OfType<Home>()
        .SelectMany(h => h.Stopped.Reverse()).Select(s => s switch
        {
            { Unit: { } unit } when NvidiaUnits.Has(unit) => new StartUnit(unit),
            { Mps: { } mps } => new StartMps(mps) { ForOthers = true },
            _ => (Step?)null,
        }).OfType<Step>();
}
