using System.Globalization;
using GpuHandoff.Checks;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

// The look right before an unbind: docs/decisions/0028-the-last-look.md.
public static partial class Holders
{
    /// <summary>
    /// Whether a function can be taken from its driver now: an unbind waits in the kernel for everybody who has a node of it open,
    /// and not every one of them is a process that can be seen. To be asked right before the unbind.
    /// </summary>
    /// <returns>
    /// Why not, null where it can; and what must still hold when the write is made, by which a user that came during this look is
    /// noticed.
    /// </returns>
    public static (string? Busy, LastLook Look) BeforeUnbind(PciAddress function, string driver, IKernel kernel)
    {
        // The counts first, and then those who explain them: a user that comes in between is one too many at the write.
        var loaded = ModuleList.Parse(kernel.Read(Sys.Proc / "modules") ?? "");
        if (driver == "nvidia")
        {
            var stack = loaded.Where(m => NvidiaStack.Has(m.Name)).ToList();
            var look = kernel.List(Idleness.Interrupts(function)) is []
                // A first open takes the module before the interrupts, and may wake the GPU in between (nv.c:nv_open_device, nv_start_device):
                // so the counts must not have grown, either.
                ? new LastLook(Idleness.Interrupts(function), [.. stack.Where(m => m.RefCount is not null).Select(m => new ModuleUsers(m.Name, m.Users()))])
                : new LastLook(null, [.. stack.Select(m => new ModuleUsers(m.Name, 0))]);
            return (stack.Count > 0 && Idleness.AreUnused(stack) ? null : FirstOf([function], kernel) is { } user ? $"{user} has it open" : null, look);
        }
        if (DriverCount.Of(function, driver, loaded, kernel) is not { Count: > 0 } counts)
            return (Holder(function, [], kernel), new(null, []));
        var last = new LastLook(null, [.. counts.Select(c => new ModuleUsers(c.Module, c.Users))]);
        return (counts.TrueForAll(c => c.Users == 0) ? null : Holder(function, counts, kernel), last);
    }

    /// <summary>Who or what keeps the function's nodes open, in words; null: all that is counted is explained by other functions' users.</summary>
    static string? Holder(PciAddress function, List<DriverCount> counts, IKernel kernel)
    {
        // Whatever the tables of descriptors show: a duplicate of another card's may stand for one that is in no table.
        if (Substreams.OwnersOf(function, kernel) is [var owner, ..])
            return $"process {owner.ToString(CultureInfo.InvariantCulture)} has a substream or a timer of its sound card open";
        var mine = Surveyor.NodesOf(function, kernel).Select(n => Number(n.Node)).ToHashSet();
        var groups = counts.Exists(c => c.Driver == Owner.Vfio) ? VfioNodes(kernel) : [];
        var wanted = counts.SelectMany(c => c.Numbers).Concat(mine).Concat(groups.Keys).ToHashSet();
        var names = new Names(kernel);
        var pids = Pids(kernel);
        var open = new IReadOnlyList<OpenDevice>[pids.Length];
        var shown = new int[pids.Length];
        var unseen = kernel.Look(pids.Length, (i, looking) =>
        {
            open[i] = kernel.OpenIn(Process(pids[i]) / "fd", (major, minor) => wanted.Contains((major, minor)), looking);
            if (groups.Count > 0 && open[i].Any(n => groups.ContainsKey(Number(n.Node))))
                shown[i] = DevicesShown(Process(pids[i]), open[i], groups, kernel);
        }).ToHashSet();
        var seen = pids.Select((_, i) => unseen.Contains(i) ? [] : open[i] ?? []).ToArray();
        for (var i = 0; i < pids.Length; i++)
        {
            if (seen[i].FirstOrDefault(o => mine.Contains(Number(o.Node))) is { } held)
                return $"{names.Of(pids[i], Process(pids[i]), [Named(held, kernel)]).First()} has it open";
        }
        // A driver that is part of the kernel, or one whose module nothing counts: there is no other proof.
        if (counts is [] && mine.Count > 0 && unseen.Count > 0)
            return $"process {string.Join(", ", unseen.Order().Take(3).Select(i => pids[i]))} could not be looked at, and no count of {function}'s driver shows whether it has it open";
        foreach (var count in counts.Select(c => c.Driver != Owner.Vfio && c.Hidden(seen, kernel) > 0 ? c.Explain(pids, kernel) : c))
        {
            var hidden = count.Driver == Owner.Vfio ? count.Users - shown.Where((_, i) => !unseen.Contains(i)).Sum() : count.Hidden(seen, kernel);
            if (hidden <= 0)
                continue;
            if (InThreads(pids, seen, mine, wanted, names, kernel).FirstOrDefault() is { } thread)
                return $"{thread} has it open";
            if (count.Driver != Owner.Vfio && count.Hidden(seen, kernel) <= 0)
                continue;
            return new HiddenUse(count.Driver, count.Module, count.Users, count.Users - hidden).ToString()
                + string.Concat(unseen.Order().Take(3).Select(i => $"; process {pids[i]} could not be looked at"));
        }
        return null;
    }
}
