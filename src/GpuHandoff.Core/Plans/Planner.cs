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
    public static Answer Plan(Machine machine, Goal goal, Policy policy)
    {
        // Before all else, and even where the goal looks met: what is known of such a card may be anything.
        var wedged = goal.Gpus.Select(g => GpuIsWedged.Find(machine, g)).OfType<Finding>().ToImmutableArray();
        if (wedged is not [])
            return new Answer.Refused(Cannot(goal), wedged);
        var way = Way(machine, goal, policy);
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
        return new Answer.Planned(goal.Target == Target.Vfio ? Out(machine, goal, policy, way) : Back(machine, goal, policy));
    }

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
        ? Leaving(gpu, policy).All(f => f.Owner == Owner.VfioKept)
        : gpu.Functions.All(f => HomeComing.Of(new(machine, gpu, goal, policy, policy.By), f) is { } home
            ? f.Owner == home
            : !f.IsOnVfio() && f.Owner.Only is null);

    /// <summary>What goes to the VM: the slot's functions, and neighbours that the policy lets go with them.</summary>
    static IEnumerable<PciFunction> Leaving(Gpu gpu, Policy policy) =>
        gpu.Functions.Where(f => !f.Class.IsBridge()).Concat(gpu.Neighbours.Where(n => policy.Accepted.Contains(n.Address)));

    static Plan Out(Machine machine, Goal goal, Policy policy, FreeBy way)
    {
        var leaving = goal.Gpus.SelectMany(g => Leaving(g, policy)).DistinctBy(f => f.Address)
            .Where(f => f.Owner != Owner.VfioKept).ToImmutableArray();
        var onNvidia = leaving.Where(f => f.Owner.Driver == "nvidia").ToImmutableArray();
        var unload = way == FreeBy.Unload && onNvidia is not [];
        var notes = ImmutableArray.CreateBuilder<string>();
        var phases = new Phases();

        if (leaving is not [] && !machine.Drivers.Contains(Owner.Vfio))
            phases.Add("prepare", new LoadModule("vfio_pci", [], Stays: true));

        // Siblings first: the one that might block (an open sound card) blocks before the card itself is touched.
        foreach (var function in leaving.Where(f => !f.Class.IsDisplay()))
            phases.Add("siblings", new Rebind(function.Address, function.Owner, Owner.VfioKept));

        // A card without a driver, or on another one than nvidia: no modules of ours to think of.
        foreach (var function in leaving.Where(f => f.Class.IsDisplay() && !onNvidia.Contains(f)))
            phases.Add("bind", new Rebind(function.Address, function.Owner, Owner.VfioKept));

        if (unload)
        {
            if (machine.Nodes is not [])
                phases.Add("release", new RemoveNodes(machine.Nodes));
            foreach (var module in NvidiaStack.Loaded(machine).Where(m => m.Name != "nvidia"))
                phases.Add("release", new UnloadModule(module.Name, module.Parameters));
            phases.Add("release", new UnloadDriver("nvidia", [], [.. onNvidia.Select(f => new FunctionHome(f.Address, f.Owner))]));
            foreach (var function in onNvidia)
                phases.Add("bind", new Rebind(function.Address, new(null, Owner.Vfio), Owner.VfioKept));
        }
        else
        {
            var drm = machine.Module("nvidia_drm");
            var reload = goal.Gpus.Any(g => DrmHoldsTheCard.DrmMustGo(new(machine, g, goal, policy, way)));
            if (reload)
                phases.Add("release", new UnloadModule(drm.Name, drm.Parameters));
            foreach (var function in onNvidia)
            {
                phases.Add("release", new AwaitIdle(function.Address));
                phases.Add("bind", new Rebind(function.Address, function.Owner, Owner.VfioKept));
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

        var names = Names(goal.Gpus);
        return new(Target.Vfio, Addresses(goal), phases.IsEmpty()
            ? $"{names} is on {Owner.Vfio} already: nothing to do"
            : $"hand {names} over to {Owner.Vfio}{How(machine, goal, onNvidia, way)}", phases.Build())
        {
            BootId = machine.BootId,
            Notes = notes.ToImmutable(),
            Keep = [.. goal.Gpus.Select(g => Keep(machine, g, policy)).OfType<Home>()],
        };
    }

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
        var others = coming.Where(c => c.Home?.Driver != "nvidia" && c.Function.Owner != c.Home).ToList();
        var drm = machine.Module("nvidia_drm");

        if (toNvidia is not [] && !machine.Module("nvidia").IsThere())
        {
            // nvidia does not load where no card is free for it, so the cards are let go first, aimed at it.
            foreach (var (function, _) in toNvidia.Where(c => c.Function.Owner.Driver is not null))
                phases.Add("release", new Rebind(function.Address, function.Owner, new(null, "nvidia")));
            phases.Add("bind", new LoadDriver(
                "nvidia", Parameters(homes, "nvidia"), [.. toNvidia.Select(c => new FunctionHome(c.Function.Address, c.Home!))]));
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
                phases.Add("bind", new Rebind(function.Address, function.Owner, home!));
        }

        foreach (var module in ModulesOfHome(machine, homes, toNvidia is not [], phases.Unloads("nvidia_drm") ? drm : null))
            phases.Add("modules", module);

        foreach (var (function, home) in others)
        {
            var step = home is not null && (home.Driver is null || Available(machine, home.Driver))
                ? (Step)new Rebind(function.Address, function.Owner, home)
                : new LetKernelPick(function.Address, function.Id, function.Owner);
            if (step is LetKernelPick && !function.IsOnVfio() && function.Owner.Only is null)
                continue;
            if (step is Rebind && home?.Driver is { } wanted && !machine.Drivers.Contains(wanted))
                phases.Add("siblings", new LoadModule(Profile.ModuleOf(wanted), [], Stays: true));
            phases.Add("siblings", step);
        }

        var nodes = homes.SelectMany(h => h.Nodes).DistinctBy(n => n.Path)
            .Where(n => machine.Nodes.All(now => now != n)).ToImmutableArray();
        if (nodes is not [] && (toNvidia is not [] || machine.Module("nvidia").IsThere()))
            phases.Add("nodes", new MakeNodes(nodes));

        var names = Names(goal.Gpus);
        return new(Target.Host, Addresses(goal), phases.IsEmpty()
            ? $"{names} is on the host's drivers already: nothing to do"
            : $"hand {names} back to the host", phases.Build())
        {
            BootId = machine.BootId,
            Notes = notes.ToImmutable(),
            Forget = [.. homes.Where(h => h.Functions.All(f => f.Owner.Driver != Owner.Vfio) || policy.Claim).Select(h => h.Gpu)],
        };
    }

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
    static Home? Keep(Machine machine, Gpu gpu, Policy policy)
    {
        var kept = machine.HomeOf(gpu);
        var functions = Leaving(gpu, policy)
            .Select(f => new FunctionHome(f.Address, kept?.Of(f.Address) is { } before && IsOurDoing(f, before) ? before : f.Owner))
            .ToImmutableArray();
        var home = new Home(
            machine.BootId,
            gpu.Address,
            functions,
            kept is not null && kept.Modules.Length >= NvidiaStack.Loaded(machine).Count() ? kept.Modules
                : gpu.IsNvidia() ? [.. NvidiaStack.Loaded(machine).Select(m => new ModuleHome(m.Name, m.Parameters))] : [],
            kept is not null && kept.Nodes.Length >= machine.Nodes.Length ? kept.Nodes : gpu.IsNvidia() ? machine.Nodes : []);
        return kept is not null && Same(kept, home) ? null : home;
    }

    static bool IsOurDoing(PciFunction function, Owner before) =>
        function.Owner.Driver is null or Owner.Vfio || function.Owner.Only == Owner.Vfio || function.Owner.Only == before.Driver;

    // Records hold arrays, whose equality is that of references.
    static bool Same(Home a, Home b) => a.BootId == b.BootId && a.Functions.SequenceEqual(b.Functions)
        && a.Modules.Select(m => m.Name).SequenceEqual(b.Modules.Select(m => m.Name)) && a.Nodes.SequenceEqual(b.Nodes);

    static bool Available(Machine machine, string driver) =>
        machine.Drivers.Contains(driver) || machine.Loadable.Contains(Profile.ModuleOf(driver));

    static bool OthersOnNvidia(Machine machine, Goal goal) => machine.NvidiaGpus()
        .Any(g => g.Display().Owner.Driver == "nvidia" && goal.Gpus.All(w => w.Address != g.Address));

    static ImmutableArray<PciAddress> Addresses(Goal goal) => [.. goal.Gpus.Select(g => g.Address)];

    static string Names(ImmutableArray<Gpu> gpus) => string.Join(" and ", gpus);
}
