using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Steps;
using GpuHandoff.Survey;

namespace GpuHandoff.Plans;

/// <summary>From what is to what is wanted. Pure: no clock, no file, no second look. A goal that is met gives an empty plan.</summary>
public static class Planner
{
    /// <summary>The same with all that was said of how; what of it fits no card is noted.</summary>
    public static Answer Plan(Machine machine, Goal goal, PolicySet said) => Nameless(machine, goal, said) ?? Plan(machine, goal, said.On(machine)) switch
    {
        Answer.Planned { Plan: var plan } when said.Unmatched(machine).ToList() is { Count: > 0 } lost =>
            new Answer.Planned(plan with { Notes = [.. plan.Notes, .. lost] }),
        var answer => answer,
    };

    /// <summary>
    /// The refusal for a card that the files may mean by its UUID, and that tells none: what was said of it may forbid what is
    /// wanted. Null: none such. On the way back nothing is refused for that, a card shall not be lost for a name.
    /// </summary>
    static Answer.Refused? Nameless(Machine machine, Goal goal, PolicySet said)
    {
        if (goal.Target != Target.Vfio || said.Strangers(machine) is not [var stranger, ..])
            return null;
        var nameless = goal.Gpus.Where(g => g.IsNvidia() && !g.Display().IsOnVfio() && CardName.UuidOf(g, machine) is null).ToList();
        return nameless is [] ? null : new(Cannot(goal),
        [
            new("policy", $"whether the policy for {stranger.Card} means {string.Join(" or ", nameless.Select(g => g.Slot()))} cannot be told",
                [$"{stranger.Setting.From} names a UUID, and NVIDIA's driver knows a card's only after somebody has opened it"],
                "run nvidia-smi -L once, or name the card by its address in the policy"),
        ]);
    }

    public static Answer Plan(Machine machine, Goal goal, Policy policy)
    {
        // A card that nobody asked for is no neighbour to be taken along.
        policy = WithoutCardsNotAskedFor(machine, goal, policy);
        policy = policy with { Own = policy.Own.ToImmutableSortedDictionary(own => own.Key, own => WithoutCardsNotAskedFor(machine, goal, own.Value)) };
        // Before all else, and even where the goal looks met: what is known of such a card may be anything.
        var wedged = goal.Gpus.Select(g => GpuIsWedged.Find(machine, g)).OfType<Finding>().ToImmutableArray();
        if (wedged is not [])
            return new Answer.Refused(Cannot(goal), wedged);
        // Nor is a card that another VM has where it is wanted, though it looks so.
        var lent = goal.Gpus.Select(g => GpuIsLent.Find(machine, g, goal)).OfType<Finding>().DistinctBy(f => f.What).ToImmutableArray();
        if (lent is not [])
            return new Answer.Refused(Cannot(goal), lent);
        var way = Way(machine, goal, policy);
        var stopping = Stopping.For(
            machine, goal, [.. goal.Gpus.Where(g => !IsMet(machine, g, goal, policy))], policy, way);
        if (stopping.Refusals is not [])
            return new Answer.Refused(Cannot(goal), stopping.Refusals);
        // From here on all is judged as it will be with those gone that the plan stops first of all.
        machine = stopping.Then(machine);
        goal = goal with { Gpus = [.. goal.Gpus.Select(g => machine.Gpus.FirstOrDefault(now => now.Address == g.Address) ?? g)] };
        var findings =
            (from gpu in goal.Gpus
             where !IsMet(machine, gpu, goal, policy)
             let question = new Question(machine, gpu, goal, policy, way)
             from check in Rules.All
             where check.When is null || check.When == goal.Target
             from finding in check.Find(question)
             select finding).DistinctBy(f => (f.Code, f.What)).ToImmutableArray();
        if (findings is not [])
            return new Answer.Refused(Cannot(goal), findings);
        return new Answer.Planned(goal.Target == Target.Vfio ? Out(machine, goal, policy, way, stopping) : Back(machine, goal, policy));
    }

    static Policy WithoutCardsNotAskedFor(Machine machine, Goal goal, Policy policy) => policy with
    {
        Accepted = [.. policy.Accepted.Where(a => goal.Gpus.Any(g => g.Address.SharesSlotWith(a)) || !IsOfACard(machine, a))],
    };

    static string Cannot(Goal goal) => goal.Target == Target.Vfio
        ? $"cannot hand {Names(goal.Gpus)} over to {Owner.Vfio}"
        : $"cannot hand {Names(goal.Gpus)} back to the host";

    /// <summary>How NVIDIA's driver is made to let go.</summary>
    static FreeBy Way(Machine machine, Goal goal, Policy policy)
    {
        if (policy.By != FreeBy.Auto)
            return policy.By;
        var othersStay = machine.NvidiaGpus()
            .Any(g => g.Functions.Any(f => f.Owner.Driver == "nvidia") && goal.Gpus.All(w => w.Address != g.Address));
        var stack = NvidiaStack.Loaded(machine).ToList();
        var canUnload = stack.Count > 0 && stack.TrueForAll(m => m.State == ModuleState.Loaded && m.RefCount is not null);
        return othersStay || !canUnload ? FreeBy.Unbind : FreeBy.Unload;
    }

    static bool IsMet(Machine machine, Gpu gpu, Goal goal, Policy policy) => goal.Target == Target.Vfio
        ? Leaving(gpu, policy).All(f => f.Owner == Owner.VfioKept && !Resizes(f, policy.For(gpu)))
        : gpu.Functions.All(f => HomeComing.Of(new(machine, gpu, goal, policy, policy.By), f) is { } home
            ? f.Owner == home
            : !f.IsOnVfio() && f.Owner.Only is null);

    /// <summary>What goes to the VM: the slot's functions, and neighbours that the policy lets go with them.</summary>
    public static IEnumerable<PciFunction> Leaving(Gpu gpu, Policy policy) =>
        gpu.Functions.Where(f => !f.Class.IsBridge()).Concat(gpu.Neighbours.Where(n => policy.For(gpu).Accepted.Contains(n.Address)));

    static bool IsOfACard(Machine machine, PciAddress function) => machine.Gpus.Any(g => g.Address.SharesSlotWith(function));

    /// <summary>What holds for the card that a function is of. A neighbour is of none.</summary>
    static Policy PolicyOf(PciFunction function, Goal goal, Policy policy) =>
        goal.Gpus.FirstOrDefault(g => g.Address.SharesSlotWith(function.Address)) is { } gpu ? policy.For(gpu) : policy;

    /// <summary>Whether a card's memory window is to get another size.</summary>
    /// <param name="policy">The card's own.</param>
    static bool Resizes(PciFunction function, Policy policy) =>
        policy.Bar1 is { } size && function.Class.IsDisplay() && function.Bar1() != size;

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
                phases.Add("release", new RemoveNodes(machine.Nodes));
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

    /// <summary>The text console off cards that it is on alone, and the firmware's picture out of their memory.</summary>
    static void LeaveConsole(
        Phases phases, ImmutableArray<string>.Builder notes, Machine machine, Goal goal, Policy policy, ImmutableArray<PciAddress> leaving)
    {
        var cards = goal.Gpus.Where(g => leaving.Contains(g.Address)).ToList();
        var firmware = cards.SelectMany(g => TextConsole.FirmwareOn(machine, g)).ToList();
        if (cards is not [] && TextConsole.On(machine, goal.Gpus) is { } console && console.IsOnFrameBuffers())
            phases.Add("console", new DetachConsole(console.Name, Addresses(goal), [.. firmware.Select(d => d.Device)]));
        // fbcon first: a picture that is taken from under it has crashed a host.
        foreach (var display in firmware)
            phases.Add("console", new ReleaseFirmwareDisplay(display));
        foreach (var card in cards.Where(g => policy.For(g).LoseConsole))
        {
            if (TextConsole.LostWith(machine, card, goal.Gpus) is { } lost)
                notes.Add($"the host's text console, on {lost}, ends when {Owner.Vfio} gets {card.Slot()}, and nothing but a boot brings it back: agreed to (--lose-console)");
        }
    }

    /// <summary>The text console back on the cards that it was on, after everything that its frame buffers need.</summary>
    static IEnumerable<Step> ReturnConsole(Machine machine, ImmutableArray<Home> homes, bool moves, ImmutableArray<string>.Builder notes)
    {
        foreach (var home in homes)
        {
            if (home.Console is not { } console || (!moves && TextConsole.OnFrameBuffers(machine) is not null))
                continue;
            var left = machine.FirmwareDisplays.Where(d => console.OfFirmware().Any(k => k.Device == d.Device)).ToList();
            foreach (var display in left.Where(d => !d.Bound))
                yield return new BindFirmwareDisplay(display);
            var drivers = console.OfFirmware() is [] && console.FrameBuffers is not [];
            if (drivers || left is not [] || TextConsole.MakesItsOwn(Parameters(homes, "nvidia_drm")))
            {
                yield return new RestoreConsole(
                    new VtConsole("", console.Vt, Bound: true).IsVgaText() ? TextConsole.FrameBufferName : console.Vt,
                    [home.Gpu], [.. left.Select(d => d.Device)]);
            }
            else
            {
                notes.Add($"the text console does not come back before the next boot: it was the firmware's, which {Owner.Vfio} took away"
                    + (machine.Gpus.FirstOrDefault(g => g.Address == home.Gpu) is { } gpu ? $"; for another time: {ConsoleWouldBeLost.Remedy(machine, gpu)}" : ""));
            }
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

    /// <summary>
    /// The resets that the kernel offers for a card, the policy allows and that hit nothing else; null where there is none.
    /// </summary>
    static Ladder? LadderOf(Gpu? gpu, Policy policy)
    {
        if (gpu is null)
            return null;
        ImmutableArray<PciAddress> slot = [.. gpu.Functions.Where(f => !f.Class.IsBridge()).Select(f => f.Address)];
        // A "bus" in the list is no promise: next to a sibling the kernel refuses it (pci.c:pci_parent_bus_reset).
        ImmutableArray<string> methods = [.. gpu.Display().ResetMethods.Where(m => slot is [_] || m is not ("bus" or "cxl_bus"))];
        ImmutableArray<Rung> rungs =
        [
            .. from rung in policy.For(gpu).Resets.Distinct().Order()
               where rung switch
               {
                   Rung.Function => methods is not [],
                   Rung.Bus => gpu.Upstream is { Resets: true, Strangers: [] },
                   _ => true,
               }
               select rung,
        ];
        return rungs is [] ? null : new(rungs, slot, gpu.Upstream?.Bridge, methods);
    }

    static ImmutableArray<Ladder> Ladders(Goal goal, Policy policy, IEnumerable<PciFunction> functions) =>
    [
        .. from gpu in goal.Gpus
           where functions.Any(f => f.Address.SharesSlotWith(gpu.Address))
           let ladder = LadderOf(gpu, policy)
           where ladder is not null
           select ladder,
    ];

    static string How(Machine machine, Goal goal, ImmutableArray<PciFunction> onNvidia, FreeBy way) => (onNvidia, way) switch
    {
        ([], _) => "",
        (_, FreeBy.Unload) => " by unloading the nvidia modules: no other GPU needs them",
        _ when OthersOnNvidia(machine, goal) => " by unbinding it alone: other GPUs stay on nvidia",
        _ when DrmHoldsTheCard.DrmMustGo(new(machine, goal.Gpus[0], goal, Policy.Default, way)) =>
            " by unbinding it alone: nvidia_drm goes, because it would hold the card; the other modules stay",
        _ => " by unbinding it alone: the nvidia modules stay loaded",
    };

    static Plan Back(Machine machine, Goal goal, Policy policy)
    {
        var phases = new Phases();
        var notes = ImmutableArray.CreateBuilder<string>();
        var homes = goal.Gpus.Select(machine.HomeOf).OfType<Home>().ToImmutableArray();
        var coming = (from gpu in goal.Gpus
                      let question = new Question(machine, gpu, goal, policy, policy.By)
                      from function in gpu.Functions.Concat(gpu.Neighbours.Where(n => machine.HomeOf(gpu)?.Of(n.Address) is not null))
                      select (Function: function, Home: HomeComing.Of(question, function))).DistinctBy(c => c.Function.Address).ToList();

        foreach (var (function, home) in coming.Where(c => c.Home?.Driver == Owner.Vfio && c.Function.Owner == c.Home))
            notes.Add($"{function.Address} was on {Owner.Vfio} before it was handed over, and stays there (--claim takes it to the host)");

        var toNvidia = coming.Where(c => c.Home?.Driver == "nvidia" && c.Function.Owner != c.Home).ToList();
        var others = coming.Where(c => c.Home?.Driver != "nvidia"
            && (c.Function.Owner != c.Home || (c.Function.IsOnVfio() && !IsTaken(machine, c.Function) && Unresize(machine, c.Function) is not null))).ToList();
        var drm = machine.Module("nvidia_drm");

        // They make their lists of cards when they begin: running for the others, they have to begin anew. They go before the
        // card comes, so that an undo finds the card without them, too.
        if (toNvidia is not [] && OthersOnNvidia(machine, goal))
        {
            foreach (var unit in homes.SelectMany(h => h.Stopped).Select(s => s.Unit).OfType<string>().Where(NvidiaUnits.Has).Distinct())
            {
                if (unit == NvidiaUnits.FabricManager && goal.Gpus.All(g => policy.For(g).Users.OfUnit(unit, Treatment.Refuse) == Treatment.Refuse))
                {
                    notes.Add($"{unit} may not know the card before it is started anew: left at it, because its end aborts the CUDA work of all GPUs");
                    continue;
                }
                phases.Add("users", new StopUnit(unit) { ToBeginAnew = true, SparesClients = NvidiaUnits.HasMps(unit) });
            }
            foreach (var mps in homes.SelectMany(h => h.Stopped).Select(s => s.Mps).OfType<MpsDaemon>().Distinct())
                phases.Add("users", new StopMps(mps, Force: false) { ToBeginAnew = true });
        }

        if (toNvidia is not [] && !machine.Module("nvidia").IsThere())
        {
            // nvidia does not load where no card is free for it, so the cards are let go first, aimed at it. One that has no
            // driver is aimed, too: the way back from the load ends at vfio-pci, and only this step knows what was before.
            foreach (var (function, _) in toNvidia)
            {
                var aimed = new Owner(null, "nvidia");
                phases.Add("release", new Rebind(function.Address, function.Owner, function.Owner == aimed ? new(null, Owner.Vfio) : aimed));
            }
            foreach (var resize in toNvidia.Select(c => Unresize(machine, c.Function)).OfType<ResizeBar>())
                phases.Add("bind", resize);
            phases.Add("bind", new LoadDriver(
                "nvidia", Parameters(homes, "nvidia"), [.. toNvidia.Select(c => new FunctionHome(c.Function.Address, c.Home!))])
            {
                Ladders = Ladders(goal, policy, toNvidia.Select(c => c.Function)),
            });
        }
        else if (toNvidia is not [])
        {
            // nvidia_drm makes a DRM card for each GPU that it meets when it loads; an old one makes none later.
            var meetsOnlyAtLoad = drm.IsThere() && machine.Nvidia?.DrmFollowsUnbind() != true
                && toNvidia.Exists(c => c.Function.Owner.Driver != "nvidia");
            if (meetsOnlyAtLoad && drm.State == ModuleState.Loaded && drm.RefCount is not null && drm.Users() == 0)
            {
                phases.Add("release", new UnloadModule(drm.Name, drm.Parameters));
                notes.Add($"driver {machine.Nvidia} makes DRM cards only when nvidia_drm loads, so it is loaded anew");
            }
            else if (meetsOnlyAtLoad)
            {
                notes.Add($"the card gets no DRM nodes: driver {machine.Nvidia} makes them only when nvidia_drm loads, and that is in use");
            }
            foreach (var (function, home) in toNvidia)
            {
                phases.Add("bind", new Rebind(function.Address, LetGo(phases, machine, function), home!)
                {
                    Ladder = LadderOf(goal.Gpus.FirstOrDefault(g => g.Address == function.Address), policy),
                });
            }
        }

        foreach (var module in ModulesOfHome(machine, homes, toNvidia is not [], phases.Unloads("nvidia_drm") ? drm : null))
            phases.Add("modules", module);

        foreach (var (function, home) in others)
        {
            var step = home is not null && (home.Driver is null || Available(machine, home.Driver))
                ? (Step)new Rebind(function.Address, LetGo(phases, machine, function), home)
                : new LetKernelPick(function.Address, function.Id, function.Owner);
            if (step is LetKernelPick && !function.IsOnVfio() && function.Owner.Only is null)
                continue;
            if (step is Rebind && home?.Driver is { } wanted && !machine.Drivers.Contains(wanted))
                phases.Add("siblings", new LoadModule(Profile.ModuleOf(wanted), [], Stays: true));
            phases.Add("siblings", step);
        }

        // What stays on vfio-pci and is in use there keeps what it has: nobody asked for it back.
        ImmutableArray<PowerChange> power =
        [
            .. coming.Where(c => c.Home?.Driver != Owner.Vfio || !IsTaken(machine, c.Function))
                .Select(c => PutBack(c.Function, c.Home, homes.Select(h => h.Find(c.Function.Address)).FirstOrDefault(h => h is not null)))
                .OfType<PowerChange>(),
        ];
        if (power is not [])
            phases.Add("power", new HoldPower(power));

        var nodes = homes.SelectMany(h => h.Nodes).DistinctBy(n => n.Path)
            // A node of a module that stays away would lead nowhere.
            .Where(n => !phases.IsEmpty() || !n.Path.StartsWith("/dev/nvidia-uvm", StringComparison.Ordinal) || machine.Module("nvidia_uvm").IsThere())
            .Where(n => machine.Nodes.All(now => !IsThere(n, now, phases.IsEmpty()))).ToImmutableArray();
        if (nodes is not [] && (toNvidia is not [] || machine.Module("nvidia").IsThere()))
            phases.Add("nodes", new MakeNodes(nodes));

        ImmutableArray<PciAddress> forget =
            [
            .. from gpu in goal.Gpus
               let home = machine.HomeOf(gpu)
               where home?.Functions.All(f => f.Owner.Driver != Owner.Vfio) == true || (home is not null && policy.For(gpu).Claim)
               select gpu.Address,
        ];
        // A record that stays (vfio-pci was the home of a function) would have console and services brought back with every
        // return: only with one that moves something.
        var finished = homes.Where(h => forget.Contains(h.Gpu) || !phases.IsEmpty()).ToImmutableArray();
        // After nvidia_drm, whose frame buffer it is on, and before a display manager is started on the card.
        foreach (var step in ReturnConsole(machine, finished, !phases.IsEmpty(), notes).ToList())
            phases.Add("console", step);

        foreach (var step in Restart(machine, goal, finished))
            phases.Add("users", step);
        // Nobody wrote down what was up before: the card is the host's from now on, and so is all that hangs on it.
        var comes = !phases.IsEmpty();
        if (machine.SystemdIsSilent && comes)
            notes.Add(Silent("started"));
        foreach (var target in machine.HostTargets.Where(t => comes && !t.IsActive && goal.Gpus.Any(g => g.Address == t.Gpu && machine.HomeOf(g) is null)))
            phases.Add("users", new StartUnit(target.Unit));

        var names = Names(goal.Gpus);
        return new(Target.Host, Addresses(goal), phases.IsEmpty()
            ? $"{names} is on the host's drivers already: nothing to do"
            : $"hand {names} back to the host", phases.Build())
        {
            BootId = machine.BootId,
            Notes = notes.ToImmutable(),
            Forget = forget,
            // What was brought back is settled: somebody may stop it before the next return, and it shall stay so.
            After =
            [
                .. finished.Where(h => !forget.Contains(h.Gpu) && (h.Stopped is not [] || h.Console is not null))
                    .Select(h => h with { Stopped = [], Console = null }),
            ],
        };
    }

    /// <summary>The settings that a function goes home with; null where it has them, or nobody wrote them down.</summary>
    static PowerChange? PutBack(PciFunction function, Owner? home, FunctionHome? kept)
    {
        if (function.Power is not { } now || kept?.Power is not { Control: null or "auto" or "on" } before)
            return null;
        // On vfio-pci it may sleep by that driver's doing: that is no setting for the driver that claims it.
        if (kept.Owner.Driver == Owner.Vfio && home?.Driver != Owner.Vfio)
            before = before with { Control = now.Control };
        return before == now ? null : new(function.Address, now, before);
    }

    /// <summary>Whether somebody has it open: a VM, where it is on vfio-pci.</summary>
    static bool IsTaken(Machine machine, PciFunction function) =>
        machine.Users.Any(u => function.Nodes.Any(n => n.Node.IsSameDevice(u.Node)));

    /// <summary>The card's memory window back to the size that it had; null where it has it, or nobody changed it.</summary>
    static ResizeBar? Unresize(Machine machine, PciFunction function) =>
        machine.Homes.Select(h => h.Find(function.Address)?.Bar1).FirstOrDefault(size => size is not null) is { } before
            && function.Bar1Sizes.Contains(before) && function.Bar1() != before
            ? new(function.Address, function.Bar1(), before)
            : null;

    /// <summary>Where a window must be resized, the card is let go before it is bound again; what it is bound from then.</summary>
    static Owner LetGo(Phases phases, Machine machine, PciFunction function)
    {
        if (Unresize(machine, function) is not { } resize)
            return function.Owner;
        var none = new Owner(null, Owner.Vfio);
        if (function.Owner != none)
            phases.Add("bind", new Rebind(function.Address, function.Owner, none));
        phases.Add("bind", resize);
        return none;
    }

    static IEnumerable<Step> StoppedBefore(Machine machine, Goal goal) => goal.Gpus.Select(machine.HomeOf).OfType<Home>()
        .SelectMany(h => h.Stopped.Reverse()).Select(s => s switch
        {
            { Unit: { } unit } when NvidiaUnits.Has(unit) => new StartUnit(unit),
            { Mps: { } mps } => new StartMps(mps) { ForOthers = true },
            _ => (Step?)null,
        }).OfType<Step>();

    /// <summary>What the hand-over stopped, the last one first: a container finds its nodes, and a daemon its cards.</summary>
    static IEnumerable<Step> Restart(Machine machine, Goal goal, ImmutableArray<Home> homes)
    {
        // A card that is at home and has a record: its hand-over was killed, and may have left the card closed to new users.
        if (machine.HasNvidiaSmi)
        {
            foreach (var gpu in goal.Gpus.Where(g => g.Display().Owner.Driver == "nvidia" && machine.HomeOf(g) is not null))
                yield return new Drain(gpu.Address, On: false);
        }
        foreach (var stopped in homes.SelectMany(h => h.Stopped.Reverse()).Distinct())
        {
            if (stopped.Persistence is { } function)
                yield return new SwitchPersistence(function, On: true);
            if (stopped.Container is { } container)
                yield return new StartContainer(container);
            if (stopped.Mps is { } mps)
                yield return new StartMps(mps) { ForOthers = OthersOnNvidia(machine, goal) };
            if (stopped.Unit is { } unit)
            {
                // Started now, it would pull up the other card's target, or fail for it.
                if (!IsBoundElsewhere(unit, machine, goal))
                    yield return HostTarget.IsOne(unit) ? new StartTarget(unit, []) : new StartUnit(unit);
            }
        }
    }

    static string Silent(string what) =>
        $"systemctl does not answer: no {HostTarget.Template} is {what}, nor is what is bound to it; see whether systemd is well (systemctl status)";

    /// <summary>Whether a unit waits for another card as well, which is still away: that card's record has it, too.</summary>
    static bool IsBoundElsewhere(string unit, Machine machine, Goal goal) => machine.HostTargets.Any(t => !t.IsActive
        && t.Dependants.Contains(unit) && goal.Gpus.All(g => g.Address != t.Gpu)
        && machine.Homes.Any(h => h.Gpu == t.Gpu && h.Stopped.Any(s => s.Unit == t.Unit)));

    /// <summary>Whether a node is there as it was. nvidia-uvm and nvidia-caps have another major with every load.</summary>
    /// <param name="isRunning">The driver is not loaded anew: the majors of now are those of today.</param>
    static bool IsThere(NamedNode before, NamedNode now, bool isRunning) => now == before
        || (isRunning && (before.Path.StartsWith("/dev/nvidia-uvm", StringComparison.Ordinal) || before.Path.StartsWith("/dev/nvidia-caps", StringComparison.Ordinal))
            && now with { Node = now.Node with { Major = before.Node.Major } } == before);

    /// <summary>The rest of NVIDIA's stack as it was; where nobody wrote that down, all of it that is installed.</summary>
    static IEnumerable<LoadModule> ModulesOfHome(
        Machine machine, ImmutableArray<Home> homes, bool toNvidia, KernelModule? unloadedOnTheWay)
    {
        string[] known = ["nvidia_uvm", "nvidia_drm", "nvidia_modeset"];
        var wanted = homes is [] && toNvidia && !machine.Module("nvidia").IsThere()
            ? known.Where(machine.Loadable.Contains).Select(name => new ModuleHome(name, []))
            : homes.SelectMany(h => h.Modules).DistinctBy(m => m.Name);
        return from name in NvidiaStack.TopDown.Reverse()
               where name != "nvidia"
               let home = wanted.FirstOrDefault(m => m.Name == name)
                   ?? (unloadedOnTheWay?.Name == name ? new ModuleHome(name, unloadedOnTheWay.Parameters) : null)
               where home is not null && (unloadedOnTheWay?.Name == name || !machine.Module(name).IsThere())
               select new LoadModule(name, home.Parameters);
    }

    static ImmutableArray<string> Parameters(ImmutableArray<Home> homes, string module) =>
        homes.SelectMany(h => h.Modules).FirstOrDefault(m => m.Name == module)?.Parameters ?? [];

    /// <summary>
    /// Where each function comes from. What an earlier, unfinished run wrote down counts for functions that show its
    /// traces: no driver, vfio-pci, or an override that was ours.
    /// </summary>
    static Home? Keep(Machine machine, Gpu gpu, Goal goal, Policy policy, Stopping stopping)
    {
        var kept = machine.HomeOf(gpu);
        // Another card has a record of its own, and two would contradict each other.
        var functions = Leaving(gpu, policy)
            .Where(f => f.Address.SharesSlotWith(gpu.Address) || !IsOfACard(machine, f.Address))
            .Select(f => HomeOf(f, kept?.Find(f.Address), policy.For(gpu)))
            // A neighbour that went along under another policy is still away, and only the record knows where from.
            .Concat(gpu.Neighbours.Where(n => !policy.For(gpu).Accepted.Contains(n.Address) && !IsOfACard(machine, n.Address)
                    && kept?.Of(n.Address) is { } before && IsOurDoing(n, before))
                .Select(n => kept!.Functions.First(f => f.Function == n.Address)))
            .ToImmutableArray();
        var home = new Home(
            machine.BootId,
            gpu.Address,
            functions,
            kept is not null && kept.Modules.Length >= NvidiaStack.Loaded(machine).Count() ? kept.Modules
                : gpu.IsNvidia() ? [.. NvidiaStack.Loaded(machine).Select(m => new ModuleHome(m.Name, m.Parameters))] : [],
            kept is not null && kept.Nodes.Length >= machine.Nodes.Length ? kept.Nodes : gpu.IsNvidia() ? machine.Nodes : [])
        {
            Stopped = [.. (kept?.Stopped ?? []).Union(stopping.Remembered(gpu))],
            // A run that was killed may have detached it already.
            Console = TextConsole.HomeOf(machine, gpu, goal.Gpus) ?? kept?.Console,
            // Nobody can ask a card for it that NVIDIA's driver does not have, and the policy may go by it.
            Uuid = gpu.Uuid ?? kept?.Uuid,
        };
        return kept is not null && Same(kept, home) ? null : home;
    }

    static FunctionHome HomeOf(PciFunction now, FunctionHome? kept, Policy policy)
    {
        var ours = kept is not null && IsOurDoing(now, kept.Owner);
        return new(now.Address, ours ? kept!.Owner : now.Owner)
        {
            // Held as we hold it, it may have been us, even where the driver shows no trace of us yet.
            Power = kept?.Power is { } power && (ours || now.Power == power.Held()) ? power : now.Power,
            Bar1 = kept?.Bar1 ?? (Resizes(now, policy) ? now.Bar1() : null),
        };
    }

    static bool IsOurDoing(PciFunction function, Owner before) =>
        function.Owner.Driver is null or Owner.Vfio || function.Owner.Only == Owner.Vfio || function.Owner.Only == before.Driver;

    // Records hold arrays, whose equality is that of references.
    static bool Same(Home a, Home b) => a.BootId == b.BootId && a.Functions.SequenceEqual(b.Functions)
        && a.Modules.Select(m => m.Name).SequenceEqual(b.Modules.Select(m => m.Name)) && a.Nodes.SequenceEqual(b.Nodes)
        && a.Stopped.SequenceEqual(b.Stopped) && a.Uuid == b.Uuid
        && (b.Console is null ? a.Console is null : b.Console.IsSameAs(a.Console));

    static bool Available(Machine machine, string driver) =>
        machine.Drivers.Contains(driver) || machine.Loadable.Contains(Profile.ModuleOf(driver));

    static bool OthersOnNvidia(Machine machine, Goal goal) => machine.NvidiaGpus()
        .Any(g => g.Display().Owner.Driver == "nvidia" && goal.Gpus.All(w => w.Address != g.Address));

    static ImmutableArray<PciAddress> Addresses(Goal goal) => [.. goal.Gpus.Select(g => g.Address)];

    static string Names(ImmutableArray<Gpu> gpus) => string.Join(" and ", gpus);
}
