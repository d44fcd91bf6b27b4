using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Steps;
using GpuHandoff.Survey;

namespace GpuHandoff.Proxmox;

/// <summary>What a person asks for.</summary>
/// <param name="Gpu">Which card, as on every command line; null: the only one.</param>
public sealed record SetUpWish(int Vm, string? Gpu = null, string? Mapping = null, bool Primary = false);

/// <summary>Gives a VM a card and the hook, and takes both back: look, plan, write down, act.</summary>
/// <param name="ledger">Read only: whose the cards are now.</param>
/// <param name="diary">
/// Of the steps' run, and forgotten with it: what a killed run leaves is in the record of the attachment, which an attach
/// completes and a detach takes back. The journal of a hand-over would be recovered as one.
/// </param>
/// <param name="program">The installed program, by its absolute path.</param>
/// <param name="footprint">Where what it changes is noted; null: the caller does not ask.</param>
public sealed class SetUp(
    IKernel kernel, ILedger ledger, ILedger diary, IAttachments records, ILocks locks, IWitness witness, string program, Footprint? footprint = null)
{
    /// <summary>Two set-ups at once would both find the same hostpci line free, and both the link missing.</summary>
    public const string Lock = "set-up";

    /// <summary>What attach would do.</summary>
    public Answer WouldAttach(SetUpWish wish, PolicySet policy) => Look(wish.Vm, wish.Mapping, (machine, around) => Attach(wish, machine, around, policy));

    public Answer WouldDetach(int vm) => Look(vm, null, Detaching.Plan);

    public Ending Attach(SetUpWish wish, PolicySet policy, CancellationToken stop) => Alone(() =>
    {
        var answer = WouldAttach(wish, policy);
        if (answer is not Answer.Planned { Plan: var plan })
            return new Ending.Refused((Answer.Refused)answer);
        witness.Begins(plan);
        if (plan.IsEmpty())
            return new Ending.Ran(plan, new Outcome.Done(0));
        var before = records.All().FirstOrDefault(a => a.Vm == wish.Vm);
        var adds = Added(wish.Vm, plan);
        // On disk before it is done: whatever becomes of us, detach knows what to look for.
        records.Keep(before?.And(adds) ?? adds);
        var outcome = Run(plan, stop);
        if (outcome is Outcome.RolledBack)
            PutBack(wish.Vm, before);
        return new Ending.Ran(plan, outcome);
    });

    public Ending Detach(int vm, CancellationToken stop) => Alone(() =>
    {
        Surroundings? seen = null;
        var answer = Look(vm, null, (machine, around) => Detaching.Plan(machine, seen = around));
        if (answer is not Answer.Planned { Plan: var plan })
            return new Ending.Refused((Answer.Refused)answer);
        witness.Begins(plan);
        var outcome = plan.IsEmpty() ? new Outcome.Done(0) : Run(plan, stop);
        if (outcome is Outcome.Done)
        {
            // Who goes on with the link is the one at whose end it goes.
            if (seen!.Attached() is { Link: { } link } attached && Detaching.Heir(seen) is { } heir)
                records.Keep(heir with { Link = link, Folders = [.. heir.Folders.Union(attached.Folders)] });
            records.Forget(vm);
        }
        return new Ending.Ran(plan, outcome);
    });

    Answer Look(int vm, string? mapping, Func<Machine, Surroundings, Answer> plan)
    {
        try
        {
            if (!new ProxmoxNode(kernel).IsThere())
            {
                const string what = "this is no host of Proxmox VE";
                return new Answer.Refused(what, [new("no-proxmox", what, [$"there is no {ProxmoxNode.Vms}"], "on a host with libvirt its hook does this: docs/libvirt.md")]);
            }
            var around = Surroundings.Of(vm, mapping, program, records.All(), kernel);
            return plan(Surveyor.Survey(kernel, ledger.Homes(), Target.Vfio, ledger.Wedges(), ledger.Leases()), around);
        }
        catch (NotProxmox trouble)
        {
            return new Answer.Refused(trouble.Message, [new("not-proxmox", trouble.Message, [], "look at the file it speaks of")]);
        }
    }

    static Answer Attach(SetUpWish wish, Machine machine, Surroundings around, PolicySet policy)
    {
        if (Attaching.Unfit(around) is { } unfit)
            return new Answer.Refused(unfit.What, [unfit]);
        if (wish.Mapping is { } mapping && wish.Gpu is null)
        {
            ImmutableArray<Gpu> offered = around.Mapping is { } found ? [.. machine.Gpus.Where(g => around.Guests.Offers(found, g))] : [];
            if (around.Mapping is not null && offered is [])
            {
                var what = $"mapping {mapping} offers no GPU on node {around.Guests.Node}";
                return new Answer.Refused(what, [new(
                    "mapping-misses-gpu", what, [.. around.Mapping.Alternatives.Select(a => $"{a.Node}: {string.Join(';', a.Path)}")],
                    "add this node's card to it under Datacenter, Resource Mappings")]);
            }
            return Attaching.Plan(machine, new(wish.Vm, offered, mapping, wish.Primary), around, policy);
        }
        return Selection.Of(machine, wish.Gpu) switch
        {
            Selection.Chosen { Gpus: var gpus } => Attaching.Plan(machine, new(wish.Vm, gpus, wish.Mapping, wish.Primary), around, policy),
            Selection.Unclear unclear => new Answer.Refused(unclear.What, [new("which-gpu", unclear.What, unclear.Evidence, unclear.Hint)]),
            _ => throw new InvalidOperationException("a selection is clear or unclear"),
        };
    }

    static Attachment Added(int vm, Plan plan) => new(vm, [.. plan.Steps().OfType<SetVm>().SelectMany(s => s.Settings)])
    {
        Folders = [.. plan.Steps().OfType<MakeFolder>().Select(s => s.Path)],
        // One that led elsewhere was there before.
        Link = plan.Steps().OfType<LinkProgram>().FirstOrDefault(s => s.From is null)?.Link,
    };

    void PutBack(int vm, Attachment? before)
    {
        if (before is null)
            records.Forget(vm);
        else
            records.Keep(before);
    }

    Outcome Run(Plan plan, CancellationToken stop) => new Executor(kernel, diary, witness, Limits.Default, footprint).Run(plan, stop);

    Ending Alone(Func<Ending> act)
    {
        if (locks.Try(Lock, shared: false) is not { } held)
        {
            const string what = "another attach or detach has not ended";
            return new Ending.Refused(new(what, [new("locked", $"{locks.Holder(Lock)} is at work", [], "wait for it, or look into what it does")]));
        }
        using (held)
        {
            try
            {
                return act();
            }
            catch (KernelSilent silent)
            {
                return new Ending.Unanswered(silent);
            }
        }
    }
}
