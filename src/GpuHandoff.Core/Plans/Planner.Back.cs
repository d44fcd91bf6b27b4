using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Steps;
using GpuHandoff.Survey;

namespace GpuHandoff.Plans;

// The way back to the host.
public static partial class Planner
{
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

        foreach (var module in ModulesOfHome(machine, [.. homes.Where(h => !h.Returned)], toNvidia is not [], phases.Unloads("nvidia_drm") ? drm : null))
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
            .Where(n => machine.Nodes.All(now => !IsThere(n, now, phases.IsEmpty())))
            // That of another GPU that is away comes back with it.
            .Where(n => !machine.Homes.Any(h => n.Path == $"/dev/nvidia{h.Minor}" && IsAway(machine, h.Gpu) && !homes.Contains(h))).ToImmutableArray();
        ImmutableArray<OwnNode> own =
        [
            .. from home in homes
               where toNvidia.Exists(c => c.Function.Address == home.Gpu)
                   // A run that was killed may have got so far.
                   || machine.Gpus.FirstOrDefault(g => g.Address == home.Gpu)?.Minor is { } now && machine.Nodes.All(n => n.Path != $"/dev/nvidia{now}")
               let node = home.Nodes.FirstOrDefault(n => n.Path == $"/dev/nvidia{home.Minor}")
               where node is not null
               select new OwnNode(home.Gpu, node),
        ];
        if ((nodes is not [] || own is not []) && (toNvidia is not [] || machine.Module("nvidia").IsThere()))
            phases.Add("nodes", new MakeNodes(nodes)
            {
                Own = own is [] ? default : own,
                Kept = own is [] ? default : [.. machine.Nodes.Select(n => n.Path).Where(path => path.StartsWith("/dev/nvidia", StringComparison.Ordinal) && char.IsAsciiDigit(path[^1]))],
            });

        ImmutableArray<PciAddress> forget =
            [
            .. from gpu in goal.Gpus
               let home = machine.HomeOf(gpu)
               where home?.Functions.All(f => f.Owner.Driver != Owner.Vfio) == true || (home is not null && policy.For(gpu).Claim)
               select gpu.Address,
        ];
        // A record that stays (vfio-pci was the home of a function) would have console and services brought back with every
        // return: only with one that moves something, or where an earlier return has left some of it.
        var finished = homes.Where(h => forget.Contains(h.Gpu) || h.Returned || !phases.IsEmpty()).ToImmutableArray();
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
            : !comes && homes.All(h => h.Returned) ? $"{names} is on the host's drivers already: start what an earlier return has left"
            : $"hand {names} back to the host", phases.Build())
        {
            BootId = machine.BootId,
            Notes = notes.ToImmutable(),
            Forget = forget,
            // What was brought back is settled: somebody may stop it before the next return, and it shall stay so.
            After =
            [
                .. finished.Where(h => !forget.Contains(h.Gpu) && (h.Stopped is not [] || h.Console is not null))
                    .Select(h => h with { Stopped = [], Console = null, Returned = false }),
            ],
        };
    }

    static bool IsAway(Machine machine, PciAddress gpu) =>
        machine.Gpus.FirstOrDefault(g => g.Address == gpu)?.Display().Owner.Driver is not "nvidia";

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

    /// <summary>What the hand-over stopped, the last one first: a container finds its nodes, and a daemon its cards.</summary>
    static IEnumerable<Step> Restart(Machine machine, Goal goal, ImmutableArray<Home> homes)
    {
        // A card that is at home and has a record: its hand-over was killed, and may have left the card closed to new users.
        if (machine.HasNvidiaSmi)
        {
            foreach (var gpu in goal.Gpus.Where(g => g.Display().Owner.Driver == "nvidia" && machine.HomeOf(g) is { Returned: false }))
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

    static bool Available(Machine machine, string driver) =>
        machine.Drivers.Contains(driver) || machine.Loadable.Contains(Profile.ModuleOf(driver));
}
