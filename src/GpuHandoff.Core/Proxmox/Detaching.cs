using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Steps;

namespace GpuHandoff.Proxmox;

/// <summary>From what attach wrote down to what was before: exactly that, and nothing that somebody has changed since. Pure.</summary>
public static class Detaching
{
    public static Answer Plan(Machine machine, Surroundings around)
    {
        var what = $"cannot detach {around.Name()}";
        if (around.Attached() is not { } attached)
            return new Answer.Refused(what, [Unknown(around)]);
        // Its lines are that node's now, and when it comes back it needs the link.
        if (around.Elsewhere is { } node)
            return new Answer.Refused(what, [Away(around, node)]);
        var findings = Attaching.Held(around).Concat(Used(machine, attached, around)).ToImmutableArray();
        if (findings is not [])
            return new Answer.Refused(what, findings);

        var (phases, notes) = (new Phases(), new List<string>());
        if (around.Settings is { } settings)
        {
            ImmutableArray<VmLine> back = [.. attached.Settings.Where(s => !s.Is(settings.Next(s.Key), s.From) && s.Is(settings.Next(s.Key), s.To)).Select(s => s.Back())];
            if (back is not [])
                phases.Add("vm", new SetVm(around.Vm, back));
            notes.AddRange(attached.Settings.Where(s => !s.Is(settings.Next(s.Key), s.From) && !s.Is(settings.Next(s.Key), s.To))
                .Select(s => $"{s.Key} is left as it is: somebody changed it to {settings.Next(s.Key) ?? "nothing"}, and attach had set {s.To}"));
        }
        else
        {
            notes.Add($"{around.Vm} is no VM of this node any more: nothing is left to take from it");
        }
        if (attached.Link is { } link)
        {
            if (StillCalled(around) is { Count: > 0 } others)
            {
                notes.Add($"{link} stays: {string.Join(", ", others)} {(others.Count == 1 ? "has" : "have")} it for a hookscript");
            }
            else if (around.OtherNodes is not [])
            {
                // Without it the start of a VM that comes back fails ("hookscript … does not exist"), and with it nothing does.
                notes.Add($"{link} stays: VMs that go by it may come here from {string.Join(", ", around.OtherNodes)}; where none does: rm {link}");
            }
            else
            {
                if (around.LinkedTo is { } to)
                    phases.Add("snippet", new LinkProgram(link, to, null));
                foreach (var folder in attached.Folders.Where(f => !around.MissingFolders.Contains(f)).Reverse())
                    phases.Add("snippet", new RemoveFolder(folder));
            }
        }
        return new Answer.Planned(new(
            Target.Host, [.. machine.Gpus.Select(g => g.Address).Take(1)],
            phases.IsEmpty() ? $"{around.Name()} has nothing of ours left" : $"detach {around.Name()}", phases.Build())
        {
            BootId = machine.BootId,
            Notes = [.. notes],
        });
    }

    /// <summary>Who takes the link over: a VM that goes on with it and was attached by us.</summary>
    public static Attachment? Heir(Surroundings around) =>
        StillCalled(around) is [] ? null : around.Attachments.FirstOrDefault(a => a.Vm != around.Vm && a.Link is null);

    static List<string> StillCalled(Surroundings around) =>
    [
        .. around.Guests.Vms.Where(v => v.Id != around.Vm && Snippet.Of(v.Config?.Hookscript) == Hookscript.Ours).Select(v => $"VM {v.Id}"),
    ];

    static Finding Away(Surroundings around, string node) => new(
        "vm-is-elsewhere", $"VM {around.Vm} is on node {node}", [$"{ProxmoxNode.Cluster}/nodes/{node}/qemu-server/{around.Vm}.conf"],
        $"what attach wrote down of it is on this node: bring the VM back first, on {node}: qm migrate {around.Vm} {around.Guests.Node}");

    static Finding Unknown(Surroundings around)
    {
        var ours = around.Settings?.Next("hookscript") is { } script && Snippet.Of(script) == Hookscript.Ours;
        var lines = around.Settings?.Devices().Select(d => d.Key()).ToList() ?? [];
        return new(
            "not-attached", $"gpu-handoff attached nothing to VM {around.Vm}",
            ours ? [$"its hookscript is {around.Settings!.Next("hookscript")}, and somebody else set it"] : [],
            ours || lines is not []
                ? $"take it away yourself: qm set {around.Vm} --delete {string.Join(',', lines.Concat(ours ? ["hookscript"] : []))}"
                : "gpu-handoff vms lists the VMs that have a GPU");
    }

    /// <summary>A VM that has the card now loses its hook, and nobody would bring the card home at its end.</summary>
    static IEnumerable<Finding> Used(Machine machine, Attachment attached, Surroundings around)
    {
        var loans = machine.Loans.Where(l => l.Lease.Guest == HookErrand.GuestOf(around.Vm)).ToList();
        if (loans is not [])
        {
            yield return new(
                "gpu-is-lent", $"{string.Join(" and ", loans.Select(l => l.Lease.Gpu.Slot).Distinct())} is lent to {around.Name()}", [.. loans.Select(l => l.Evidence)],
                $"shut the VM down first: without its hook the GPU would not come back (qm shutdown {around.Vm})");
        }
        else if (around.Runs() && attached.Settings.Any(s => s.Key.StartsWith("hostpci", StringComparison.Ordinal) && s.To is not null
            && s.Is(around.Settings?.Now.GetValueOrDefault(s.Key), s.To)))
        {
            yield return new(
                "vm-runs", $"{around.Name()} runs with a device that attach gave it", [], $"shut the VM down first: qm shutdown {around.Vm}");
        }
    }
}
