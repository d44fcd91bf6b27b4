using System.Collections.Immutable;
using System.Text.Json.Serialization;
using GpuHandoff.Machines;

namespace GpuHandoff.Proxmox;

/// <summary>A guest that has a card in its configuration.</summary>
/// <param name="Kind"><c>VM</c> or <c>container</c>.</param>
/// <param name="Through">The line or lines that give it: <c>hostpci0</c>, <c>hostpci1, mapping gpu-pool</c>.</param>
public sealed record Sharer(string Kind, int Id, string? Name, string Through)
{
    public bool Runs { get; init; }

    /// <summary>It is lent to this one now.</summary>
    public bool HasIt { get; init; }

    /// <summary>Whether its starts and stops are told to us; null: a container's need not be.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public Hookscript? Hook { get; init; }

    public override string ToString() => Name is { Length: > 0 } ? $"{Kind} {Id} ({Name})" : $"{Kind} {Id}";
}

/// <summary>A card, whose it is now, and who may get it.</summary>
/// <param name="Now">In words: <c>lent to VM 101 (windows)</c>, <c>with the host (nvidia)</c>.</param>
public sealed record Shared(PciAddress Gpu, string? Model, string Now, ImmutableArray<Sharer> Guests);

/// <summary>A VM that calls us at each start and end, and has no card of this node in its configuration.</summary>
public sealed record Hooked(int Id, string? Name)
{
    public bool Runs { get; init; }

    public override string ToString() => Name is { Length: > 0 } ? $"VM {Id} ({Name})" : $"VM {Id}";
}

/// <summary>Which guests' files name which cards.</summary>
public static class Sharers
{
    public static IEnumerable<Shared> Of(Machine machine, NodeGuests guests) =>
        machine.Gpus.Select(gpu => new Shared(gpu.Address, gpu.Display().Name, Now(gpu, machine), [.. Of(gpu, machine, guests)]));

    /// <summary>VMs whose start hangs on our program although they have none of these cards: it fails where the link leads nowhere.</summary>
    public static IEnumerable<Hooked> WithHookAlone(IEnumerable<Shared> cards, NodeGuests guests)
    {
        var shared = cards.SelectMany(c => c.Guests).Where(g => g.Kind == "VM").Select(g => g.Id).ToHashSet();
        return guests.Vms.Where(v => Snippet.Of(v.Config?.Hookscript) == Hookscript.Ours && !shared.Contains(v.Id))
            .Select(v => new Hooked(v.Id, v.Config!.Name) { Runs = guests.Running.Contains(v.Id) });
    }

    public static IEnumerable<Sharer> Of(Gpu gpu, Machine machine, NodeGuests guests)
    {
        var tenant = machine.LoanOf(gpu)?.Lease.Guest;
        foreach (var (id, config) in guests.Vms.Where(v => v.Config is not null).Select(v => (v.Id, v.Config!)))
        {
            var through = config.Devices.Where(d => guests.Gives(d, gpu))
                .Select(d => d.Mapping is { } mapping ? $"{d.Key()}, mapping {mapping}" : d.Key()).ToList();
            if (config.Arguments is { } arguments && Allotment.InArguments(arguments).Any(a => gpu.Functions.Any(f => f.Address == a)))
                through.Add("args");
            if (through is [])
                continue;
            yield return new("VM", id, config.Name, string.Join(", ", through))
            {
                Runs = guests.Running.Contains(id),
                HasIt = tenant == HookErrand.GuestOf(id),
                Hook = Snippet.Of(config.Hookscript),
            };
        }
        foreach (var container in guests.Containers.Where(c => Has(c.Devices, gpu, machine)))
        {
            yield return new("container", container.Id, container.Name, "its devices")
            {
                Runs = guests.Running.Contains(container.Id),
            };
        }
    }

    // While a VM has the card its nodes have no number: then what names any card of NVIDIA's may mean this one.
    static bool Has(RunningContainer container, Gpu gpu, Machine machine) => container.Has(gpu, machine, wholeStack: false)
        || (gpu.IsNvidia() && gpu.Minor is null
            && (container.Nodes.Any(n => n.StartsWith("/dev/nvidia", StringComparison.Ordinal)) || container.Rules.Any(r => r.Major == 195)));

    static string Now(Gpu gpu, Machine machine)
    {
        if (machine.WedgeOf(gpu) is not null)
            return "stuck until the next boot";
        if (machine.LoanOf(gpu) is { } loan)
            return $"lent to {loan.Lease.Guest}, {loan.Evidence}";
        var display = gpu.Display();
        if (!display.IsOnVfio())
            return display.Owner.Driver is { } driver ? $"with the host ({driver})" : "without a driver";
        var nodes = gpu.Functions.Where(f => f.IsOnVfio()).SelectMany(f => f.Nodes).ToList();
        return machine.Users.FirstOrDefault(u => nodes.Exists(n => n.Node.IsSameDevice(u.Node))) is { } user
            ? user.Of.Vm is { } vm ? $"VM {vm} has it, without a lease of ours" : $"on vfio-pci, used by {user}"
            : "on vfio-pci, and nobody has it";
    }
}
