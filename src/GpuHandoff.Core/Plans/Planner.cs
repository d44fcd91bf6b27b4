using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Machines;

namespace GpuHandoff.Plans;

/// <summary>From what is to what is wanted. Pure: no clock, no file, no second look. A goal that is met gives an empty plan.</summary>
public static partial class Planner
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

    static string Silent(string what) =>
        $"systemctl does not answer: no {HostTarget.Template} is {what}, nor is what is bound to it; see whether systemd is well (systemctl status)";

    static bool OthersOnNvidia(Machine machine, Goal goal) => machine.NvidiaGpus()
        .Any(g => g.Display().Owner.Driver == "nvidia" && goal.Gpus.All(w => w.Address != g.Address));

    static ImmutableArray<PciAddress> Addresses(Goal goal) => [.. goal.Gpus.Select(g => g.Address)];

    static string Names(ImmutableArray<Gpu> gpus) => string.Join(" and ", gpus);
}
