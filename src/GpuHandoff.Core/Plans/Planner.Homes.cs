using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Machines;

namespace GpuHandoff.Plans;

// What is written down before a card goes: where each of its functions comes from, and what was up on it.
public static partial class Planner
{
    /// <summary>
    /// Where each function comes from. What an earlier, unfinished run wrote down counts for functions that show its
    /// traces: no driver, vfio-pci, or an override that was ours.
    /// </summary>
    static Home? Keep(Machine machine, Gpu gpu, Goal goal, Policy policy, Stopping stopping)
    {
        var record = machine.HomeOf(gpu);
        // Of one that came home since only what it has left counts: the rest may be another one by now.
        var kept = record is { Returned: true } ? null : record;
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
            Stopped = [.. (record?.Stopped ?? []).Union(stopping.Remembered(gpu))],
            // A run that was killed may have detached it already.
            Console = TextConsole.HomeOf(machine, gpu, goal.Gpus) ?? kept?.Console,
            // Nobody can ask a card for it that NVIDIA's driver does not have, and the policy may go by it.
            Uuid = gpu.Uuid ?? record?.Uuid,
            Minor = gpu.Minor ?? record?.Minor,
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
        && a.Stopped.SequenceEqual(b.Stopped) && a.Uuid == b.Uuid && a.Minor == b.Minor
        && (b.Console is null ? a.Console is null : b.Console.IsSameAs(a.Console));
}
