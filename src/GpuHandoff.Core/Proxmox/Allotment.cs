using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Checks;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Proxmox;

/// <summary>A function that a VM gets, and by which of its keys.</summary>
public sealed record Allotted(PciAddress Function, string Key);

/// <summary>
/// What a VM gets of the host's functions when it starts. Proxmox decides it after the hook, so its rules are followed here
/// one by one; what it would refuse is refused before anything is touched.
/// </summary>
/// <param name="Refusals">What Proxmox will not start the VM with.</param>
/// <param name="Notes">What is worth a line and stops nobody.</param>
/// <remarks>qemu-server, PVE/QemuServer/PCI.pm:parse_hostpci and choose_hostpci_devices.</remarks>
public sealed record Allotment(ImmutableArray<Allotted> Functions, ImmutableArray<Finding> Refusals, ImmutableArray<string> Notes)
{
    /// <summary>The check's name of all that Proxmox itself would not start with.</summary>
    public const string Code = "vm-devices";

    /// <summary>Cards of which it gets a function; and those in the groups of its functions, which go whole or not at all.</summary>
    public ImmutableArray<PciAddress> Gpus { get; init; } = [];

    /// <summary>A mapping had more than one device to offer: with other VMs at work the choice may be another in a moment.</summary>
    public bool HasChoice { get; init; }

    /// <summary>Functions in those cards' groups that are no part of a card, and that this VM gets by its own configuration.</summary>
    public ImmutableArray<Allotted> Neighbours { get; init; } = [];

    /// <summary>Follows Proxmox's rules for a VM that is about to start.</summary>
    /// <param name="config">Its configuration.</param>
    /// <param name="path">Where that lies, for messages.</param>
    internal static Allotment Of(int vm, VmConfig config, SysPath path, ProxmoxNode node, Claims claims, IReadOnlyList<Lease> othersLeases, IKernel kernel) =>
        new Allotting(vm, config, path, node, claims, othersLeases, kernel).Allot();

    sealed class Allotting(int vm, VmConfig config, SysPath path, ProxmoxNode node, Claims claims, IReadOnlyList<Lease> othersLeases, IKernel kernel)
    {
        readonly ImmutableArray<Allotted>.Builder _functions = ImmutableArray.CreateBuilder<Allotted>();
        readonly ImmutableArray<Finding>.Builder _refusals = ImmutableArray.CreateBuilder<Finding>();
        readonly ImmutableArray<string>.Builder _notes = ImmutableArray.CreateBuilder<string>();
        readonly ImmutableArray<PciAddress> _present = Present(kernel);
        bool? _knowsKeep;
        bool _hasChoice;

        public Allotment Allot()
        {
            foreach (var line in config.Dropped.Where(d => d.Text.StartsWith("hostpci", StringComparison.Ordinal)))
                _notes.Add($"{path}, line {line.Number}: {line.Why}; Proxmox starts the VM without \"{Short(line.Text)}\"");
            foreach (var device in config.Devices.Where(d => !d.IsMediated))
                Add(device);
            foreach (var function in InArguments(config.Arguments ?? ""))
                AddArgument(function);
            var functions = _functions.ToImmutable();
            // A virtual function is a device of its own: the card stays with the host's driver, which makes them.
            var cards = functions.Where(a => !kernel.Exists(Sys.Function(a.Function) / "physfn")).ToList();
            var groups = cards.SelectMany(a => GroupMembers(a.Function, kernel)).ToHashSet();
            var gpus = cards.Count == 0 ? [] : Surveyor.Cards(kernel).Gpus
                .Where(g => g.Functions.Any(f => cards.Exists(a => a.Function == f.Address) || groups.Contains(f.Address)))
                .Where(g => !kernel.Exists(Sys.Function(g.Address) / "physfn"))
                .ToImmutableArray();
            return new(functions, _refusals.ToImmutable(), _notes.ToImmutable())
            {
                Gpus = [.. gpus.Select(g => g.Address)],
                HasChoice = _hasChoice,
                Neighbours =
                [
                    .. functions.Where(a => !gpus.Any(g => g.Address.SharesSlotWith(a.Function))
                        && GroupMembers(a.Function, kernel).Any(m => gpus.Any(g => g.Address.SharesSlotWith(m)))),
                ],
            };
        }

        void Add(HostPci device)
        {
            if (device.WhyNoStart() is { } why)
            {
                Refuse($"{device.Key()}: {why}", [], $"mend it: qm set {vm} --{device.Key()} …");
                return;
            }
            if (device.Driver == HostDriver.Keep && !KnowsKeep())
            {
                _notes.Add($"{device.Key()} has driver=keep, which this Proxmox does not know (qemu-server {DebianVersion.KnowsKeep} does): "
                    + "it starts the VM without the device; take driver=keep out");
                return;
            }
            if (Alternatives(device) is not { } alternatives)
                return;
            _hasChoice |= alternatives.Length > 1;
            // A single one is taken outright: whether another VM has it is asked later.
            var chosen = alternatives is [var only] ? only : Free(device, alternatives);
            if (chosen.IsDefault)
                return;
            if (chosen.Any(Has))
            {
                Refuse($"{device.Key()}: {chosen.First(Has)} is assigned more than once", [], $"take it out of one of them: qm config {vm}");
                return;
            }
            _functions.AddRange(chosen.Select(f => new Allotted(f, device.Key())));
        }

        bool Has(PciAddress function) => _functions.Any(a => a.Function == function);

        /// <summary>Null: none, and that has been said.</summary>
        ImmutableArray<ImmutableArray<PciAddress>>? Alternatives(HostPci device)
        {
            if (device.Mapping is not { } id)
                return Together(device.Key(), device.Host) is { } host ? [host] : null;
            if (node.Name() is not { } name)
            {
                Refuse($"{device.Key()}: this node's name is not known, and the mapping {id} goes by it", [], "look at /proc/sys/kernel/hostname");
                return null;
            }
            var mapping = node.Mapping(id);
            foreach (var line in mapping?.Dropped ?? [])
                _notes.Add($"{ProxmoxNode.MappingFile}, line {line.Number}: {line.Why}; Proxmox goes on without it");
            if (mapping?.On(name).ToList() is not { Count: > 0 } entries)
            {
                Refuse(
                    $"{device.Key()}: there is no PCI device mapping {id} for this node, {name}", [],
                    "look at Datacenter, Resource Mappings, or: pvesh get /cluster/mapping/pci");
                return null;
            }
            var alternatives = ImmutableArray.CreateBuilder<ImmutableArray<PciAddress>>();
            foreach (var entry in entries)
            {
                if (WhyInvalid(mapping, entry, kernel) is { } changed)
                {
                    Refuse(
                        $"{device.Key()}: the mapping {id} does not fit this host any more", [changed],
                        "the hardware has probably changed; mend the mapping in Datacenter, Resource Mappings");
                    return null;
                }
                if (Together(device.Key(), entry.Path) is not { } together)
                    return null;
                alternatives.Add(together);
            }
            return alternatives.ToImmutable();
        }

        /// <summary>The functions of IDs that go together; null: one of them is not there.</summary>
        ImmutableArray<PciAddress>? Together(string key, ImmutableArray<HostId> ids)
        {
            var functions = ImmutableArray.CreateBuilder<PciAddress>();
            foreach (var id in ids)
            {
                var found = _present.Where(id.Has).ToList();
                if (found.Count == 0)
                {
                    Refuse(
                        $"{key}: no PCI device found for \"{id}\"", [$"{path} names it, and the bus has none there"],
                        "lspci -nn shows what is there; addresses change when cards are moved, and a card that fell off the bus comes back with a cold start");
                    return null;
                }
                functions.AddRange(found);
            }
            return functions.ToImmutable();
        }

        /// <summary>The first that this VM has not got already and that is nobody else's.</summary>
        ImmutableArray<PciAddress> Free(HostPci device, ImmutableArray<ImmutableArray<PciAddress>> alternatives)
        {
            var taken = new List<string>();
            foreach (var alternative in alternatives)
            {
                if (alternative.Any(Has))
                    continue;
                if (alternative.Select(WhoHas).FirstOrDefault(who => who is not null) is not { } other)
                    return alternative;
                taken.Add($"{string.Join(";", alternative)}: {other}");
            }
            Refuse(
                $"{device.Key()}: none of the mapping {device.Mapping} is free", [.. taken],
                "stop one of those VMs, or put more devices into the mapping");
            return default;
        }

        string? WhoHas(PciAddress function) =>
            claims.Of(function, vm)
            // Its hook has run, and Proxmox has not come to reserve it yet.
            ?? othersLeases.Where(l => l.Gpu.SharesSlotWith(function)).Select(l => $"it is lent to {l.Guest}").FirstOrDefault();

        void AddArgument(PciAddress function)
        {
            if (!_present.Contains(function))
            {
                Refuse($"args: no PCI device found for {function}", [$"{path} names it, and the bus has none there"], "lspci -nn shows what is there");
                return;
            }
            _notes.Add($"args gives the VM {function}: Proxmox neither binds nor reserves that; hostpci would");
            if (!Has(function))
                _functions.Add(new(function, "args"));
        }

        bool KnowsKeep() => _knowsKeep ??= DebianVersion.OfQemuServer(kernel) is not { } version || version >= DebianVersion.KnowsKeep;

        void Refuse(string what, ImmutableArray<string> evidence, string hint) => _refusals.Add(new(Code, what, evidence, hint));
    }

    /// <summary>A function's IOMMU group, itself and its bridges included.</summary>
    public static IEnumerable<PciAddress> GroupMembers(PciAddress function, IKernel kernel) => kernel.List(Sys.Function(function) / "iommu_group/devices")
        .Select(name => PciAddress.TryParse(name, out var member) ? member : (PciAddress?)null).OfType<PciAddress>();

    /// <summary>Why a mapping's entry is not what the host has; null: it is.</summary>
    /// <remarks>pve-guest-common, PVE/Mapping/PCI.pm:assert_valid.</remarks>
    public static string? WhyInvalid(PciMapping mapping, Alternative entry, IKernel kernel)
    {
        foreach (var (index, id) in entry.Path.Index())
        {
            var text = id.Text.Contains('.', StringComparison.Ordinal) ? id.Text : $"{id.Text}.0";
            if (!PciAddress.TryParse(text, out var function) || !kernel.Exists(Sys.Function(function)))
                return $"{text} is not there";
            var path = Sys.Function(function);
            var ids = IdAt(path, "vendor", "device", kernel);
            if (ids != entry.Id)
                return $"id: {text} is {ids}, and the mapping says {entry.Id}";
            // A group is compared for the first one only.
            var group = kernel.Link(path / "iommu_group")?.Split('/')[^1];
            var wanted = entry.Group?.ToString(CultureInfo.InvariantCulture);
            if (index == 0 && group != wanted)
                return $"iommugroup: {text} is in {group ?? "none"}, and the mapping says {wanted ?? "nothing"}";
            var subsystem = IdAt(path, "subsystem_vendor", "subsystem_device", kernel);
            if (subsystem != entry.Subsystem)
                return $"subsystem-id: {text} is {subsystem?.ToString() ?? "without one"}, and the mapping says {entry.Subsystem?.ToString() ?? "nothing"}";
            var mediates = kernel.Exists(path / "mdev_supported_types") || kernel.Exists(path / "nvidia");
            if (mediates != mapping.IsMediated)
                return $"mdev: {text} {(mediates ? "can" : "cannot")} make mediated devices, and the mapping says the opposite";
        }
        return null;
    }

    static PciId? IdAt(SysPath function, string vendor, string device, IKernel kernel) =>
        Hex(kernel.Read(function / vendor)) is { } v && Hex(kernel.Read(function / device)) is { } d ? new(v, d) : null;

    static int? Hex(string? text) => text is ['0', 'x', ..]
        && int.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var value) ? value : null;

    /// <summary>Functions that QEMU is given besides Proxmox.</summary>
    // -device vfio-pci,host=0000:05:00.0,multifunction=on -device vfio-pci,host=05:00.1
    // -device '{"driver":"vfio-pci","host":"0000:05:00.0"}'
    // -device vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:05:00.0
    public static IEnumerable<PciAddress> InArguments(string arguments)
    {
        if (!arguments.Contains("vfio-pci", StringComparison.Ordinal))
            yield break;
        foreach (var word in arguments.Split([' ', '\t', ',', '\'', '{', '}'], StringSplitOptions.RemoveEmptyEntries))
        {
            var pair = word.Replace("\"", "").Split(['=', ':'], 2);
            if (pair is ["host" or "sysfsdev", var value] && PciAddress.TryParse(value[(value.LastIndexOf('/') + 1)..], out var function))
                yield return function;
        }
    }

    static ImmutableArray<PciAddress> Present(IKernel kernel) =>
    [
        .. kernel.List(Sys.PciDevices).Select(name => PciAddress.TryParse(name, out var address) ? address : (PciAddress?)null)
            .OfType<PciAddress>().Order(),
    ];

    static string Short(string text) => text.Length <= 60 ? text : text[..60] + "…";
}
