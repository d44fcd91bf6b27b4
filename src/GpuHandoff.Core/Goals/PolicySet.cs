using System.Collections.Immutable;
using GpuHandoff.Machines;

namespace GpuHandoff.Goals;

/// <summary>A value that holds for one card.</summary>
public sealed record CardSetting(CardName Card, Setting Setting);

/// <summary>A value that holds for one VM.</summary>
/// <param name="Vm">Proxmox's number.</param>
public sealed record VmSetting(string Vm, Setting Setting);

/// <summary>A key with the value that holds, and where it comes from.</summary>
public sealed record Effective(string Key, string Value, Origin From);

/// <summary>
/// Everything that was said of how to hand over, in the order in which it was: files, then what files say of single cards,
/// then the command line. A policy comes of it once the cards are known: a UUID is only to be had from the machine.
/// </summary>
public sealed record PolicySet
{
    public static PolicySet Default { get; } = new();

    /// <summary>What holds where nobody says anything.</summary>
    public Policy Base { get; init; } = Policy.Default;

    public ImmutableArray<Setting> Files { get; init; } = [];

    public ImmutableArray<CardSetting> Cards { get; init; } = [];

    public ImmutableArray<VmSetting> Vms { get; init; } = [];

    /// <summary>Of the command line: above all files, for every card.</summary>
    public ImmutableArray<Setting> Flags { get; init; } = [];

    public static implicit operator PolicySet(Policy policy) => new() { Base = policy };

    /// <summary>What holds for one VM's start and end.</summary>
    public PolicySet OfVm(string vm) => Vms.Any(v => v.Vm == vm)
        ? this with { Files = [.. Files, .. Vms.Where(v => v.Vm == vm).Select(v => v.Setting)] }
        : this;

    /// <summary>The same with one more value, above all that was said.</summary>
    public PolicySet Over(string key, string from, Func<Policy, Policy> lay) => this with { Flags = [.. Flags, new(key, new(from, 0), lay)] };

    public Limits Limits() => Everywhere().Limits;

    /// <summary>What holds for the whole run, and for cards of which nothing else is said.</summary>
    public Policy Everywhere() => Lay(Base, [.. Files, .. Flags]);

    /// <summary>What holds on a machine, with what its cards have for their own.</summary>
    public Policy On(Machine machine)
    {
        var everywhere = Everywhere();
        return everywhere with
        {
            Own = everywhere.Own.SetItems(
                from gpu in machine.Gpus
                where Of(gpu, machine).Any() || (Base.Own.ContainsKey(gpu.Address) && (Files is not [] || Flags is not []))
                select KeyValuePair.Create(gpu.Address, Lay(Base.For(gpu), [.. Said(gpu, machine)]))),
        };
    }

    /// <summary>All that holds for a card, or where none is named for all of them, and who said so.</summary>
    public ImmutableArray<Effective> Effective(Gpu? gpu, Machine machine)
    {
        ImmutableArray<Setting> said = gpu is null ? [.. Files, .. Flags] : [.. Said(gpu, machine)];
        var policy = Lay(gpu is null ? Base : Base.For(gpu), said);
        Origin From(string key) => said.LastOrDefault(s => s.Key == key)?.From ?? Origin.Default;
        return
        [
            .. PolicyKey.All.Where(k => gpu is null || !k.WholeRun).Select(k => new Effective(k.Name, k.Write(policy), From(k.Name))),
            .. policy.Users.Unit.Select(u => new Effective($"users.unit.{u.Key}", PolicyKey.Say(u.Value), From($"users.unit.{u.Key}"))),
            .. policy.Users.Container.Select(c => new Effective($"users.container.{c.Key}", PolicyKey.Say(c.Value), From($"users.container.{c.Key}"))),
        ];
    }

    /// <summary>What the files say of one VM, and who said so.</summary>
    public ImmutableArray<Effective> Effective(string vm)
    {
        var said = OfVm(vm);
        var policy = said.Everywhere();
        return
        [
            .. from key in PolicyKey.All
               let last = said.Vms.LastOrDefault(v => v.Vm == vm && v.Setting.Key == key.Name)
               where last is not null
               select new Effective(key.Name, key.Write(policy), last.Setting.From),
        ];
    }

    /// <summary>What holds for a card otherwise than for all, or by another word.</summary>
    public ImmutableArray<Effective> Differing(Gpu gpu, Machine machine) => [.. Effective(gpu, machine).Except(Effective(null, machine))];

    /// <summary>UUIDs of the files that no card tells as its own: one that tells none may be meant.</summary>
    public ImmutableArray<CardSetting> Strangers(Machine machine) =>
        [.. Cards.DistinctBy(c => c.Card.Written).Where(c => c.Card.Uuid is not null && !machine.Gpus.Any(g => c.Card.Means(g, machine)))];

    /// <summary>What a file says of cards that are not to be found: taken out, moved to another slot, or silent about their names.</summary>
    public IEnumerable<string> Unmatched(Machine machine)
    {
        foreach (var card in Cards.DistinctBy(c => c.Card.Written).Where(c => !machine.Gpus.Any(g => c.Card.Means(g, machine))))
        {
            ImmutableArray<Gpu> silent = card.Card.Uuid is null ? [] : [.. machine.NvidiaGpus().Where(g => CardName.UuidOf(g, machine) is null)];
            yield return silent is []
                ? $"the policy names a GPU that is not there: {card.Card} ({card.Setting.From})"
                : $"the policy for {card.Card} ({card.Setting.From}) is left out: no GPU tells this UUID, and {string.Join(", ", silent.Select(g => g.Slot()))} "
                    + "cannot tell one now, so it may be meant; an address always fits";
        }
    }

    IEnumerable<Setting> Of(Gpu gpu, Machine machine) => Cards.Where(c => c.Card.Means(gpu, machine)).Select(c => c.Setting);

    IEnumerable<Setting> Said(Gpu gpu, Machine machine) => [.. Files, .. Of(gpu, machine), .. Flags];

    static Policy Lay(Policy policy, ImmutableArray<Setting> settings) => settings.Aggregate(policy, (now, setting) => setting.Lay(now));
}
