using System.Collections.Immutable;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Steps;

namespace GpuHandoff.Proxmox;

/// <summary>What a VM shall get.</summary>
/// <param name="Gpus">The cards; of a mapping all that it offers on this node.</param>
/// <param name="Mapping">The mapping that they go through; null: by address.</param>
/// <param name="Primary">The card is to be the VM's first display.</param>
public sealed record AttachWish(int Vm, ImmutableArray<Gpu> Gpus, string? Mapping, bool Primary);

/// <summary>From what a VM has to what it needs: the link to our program, a hostpci line for each card, the hookscript. Pure.</summary>
public static class Attaching
{
    // What would refuse every start. All else may be otherwise when the VM starts, and is told.
    static readonly string[] _lasting =
    [
        GpuIsWedged.Check.Code, IommuOff.Check.Code, VfioMissing.Check.Code, GroupIsShared.Check.Code, UnloadNotPossible.Check.Code,
        UnloadTakesOthers.Check.Code, ConsoleWouldBeLost.Check.Code, BarSizeNotOffered.Check.Code,
    ];

    public static Answer Plan(Machine machine, AttachWish wish, Surroundings around, PolicySet policy)
    {
        var what = $"cannot attach {Names(wish)} to {around.Name()}";
        if (Unfit(around) is { } unfit)
            return new Answer.Refused(what, [unfit]);
        var settings = around.Settings!;
        var guest = HookErrand.GuestOf(wish.Vm, around.File()?.Config?.Name);
        policy = policy.OfVm(guest.Id);
        ImmutableArray<Finding> wrong =
        [
            .. Held(around),
            .. Blocking(machine, wish, guest, policy),
            .. Mapped(wish, around),
            .. Scripted(wish, around, settings),
            .. Linked(around),
        ];
        var (lines, full) = Lines(wish, around, settings);
        if (full)
            wrong = wrong.Add(Of("no-free-hostpci", $"{around.Name()} has {HostPci.Most} hostpci lines already", [], $"take one away: qm set {wish.Vm} --delete hostpciN"));
        if (wrong is not [])
            return new Answer.Refused(what, [.. wrong.DistinctBy(f => (f.Code, f.What))]);

        var phases = new Phases();
        foreach (var folder in around.MissingFolders)
            phases.Add("snippet", new MakeFolder(folder));
        if (around.Link?.Kind != FileKind.File && around.LinkedTo != around.Program)
            phases.Add("snippet", new LinkProgram(around.Snippet().Text, around.LinkedTo, around.Program));
        if (Snippet.Of(settings.Next("hookscript")) == Hookscript.None)
            lines = lines.Add(new("hookscript", null, Snippet.Volume));
        if (lines is not [])
            phases.Add("vm", new SetVm(wish.Vm, lines));
        var done = phases.IsEmpty();
        return new Answer.Planned(new(
            Target.Vfio, [.. wish.Gpus.Select(g => g.Address)],
            done ? $"{around.Name()} has {Names(wish)} and the hook already" : $"attach {Names(wish)} to {around.Name()}", phases.Build())
        {
            BootId = machine.BootId,
            Notes = [.. Notes(machine, wish, around, settings, guest, policy)],
        });
    }

    static string Names(AttachWish wish) => wish.Mapping is { } mapping ? $"mapping {mapping}" : string.Join(" and ", wish.Gpus);

    static Finding Of(string code, string what, ImmutableArray<string> evidence, string hint) => new(code, what, evidence, hint);

    /// <summary>Why this is no VM that can get a card here.</summary>
    public static Finding? Unfit(Surroundings around) => around switch
    {
        { Settings: not null } when around.File()?.Config?.IsTemplate == true => Of(
            "vm-is-a-template", $"{around.Name()} is a template, which is never started", [], "attach the GPU to the VMs that are cloned from it"),
        { Settings: not null } => null,
        _ when around.File()?.Trouble is { } trouble => Of(
            "vm-unreadable", $"the configuration of VM {around.Vm} cannot be read", [$"{ProxmoxNode.PathOf(around.Vm)}: {trouble}"], "look at it: qm config " + around.Vm),
        _ when around.Guests.Containers.Any(c => c.Id == around.Vm) => Of(
            "vm-is-a-container", $"{around.Vm} is a container, and a container shares the card with the host", [],
            $"give it the host's nodes instead: pct set {around.Vm} --dev0 /dev/nvidia0 (docs/commands.md tells what a hand-over does with it)"),
        { Elsewhere: { } node } => Of(
            "vm-is-elsewhere", $"VM {around.Vm} is on node {node}", [$"{ProxmoxNode.Cluster}/nodes/{node}/qemu-server/{around.Vm}.conf"],
            $"run this on {node}, or bring the VM here first: qm migrate {around.Vm} {around.Guests.Node}"),
        _ => Of(
            "no-such-vm", $"there is no VM {around.Vm}",
            [around.Guests.Vms is [] ? "this node has no VM" : $"this node has {string.Join(", ", around.Guests.Vms.Select(v => v.Config?.Name is { } name ? $"{v.Id} ({name})" : $"{v.Id}"))}"],
            "qm list shows the VMs of this node"),
    };

    /// <summary>A VM that Proxmox is at work on. It would refuse, too; but then half of it might be done.</summary>
    public static IEnumerable<Finding> Held(Surroundings around)
    {
        if (around.File()?.Config?.Lock is { } word)
        {
            yield return Of(
                "vm-is-locked", $"{around.Name()} is locked: {word}", [$"lock: {word} in {ProxmoxNode.PathOf(around.Vm)}"],
                $"wait for the {word} to end; a lock that is left over goes with qm unlock {around.Vm}");
        }
        else if (around.LockedBy is { } holder)
        {
            yield return Of(
                "vm-is-locked", $"a task of Proxmox is at work on {around.Name()}", [holder], "wait for it to end");
        }
    }

    /// <summary>What would refuse every start: judged as if users of the card had been stopped, and no other VM had it.</summary>
    static IEnumerable<Finding> Blocking(Machine machine, AttachWish wish, Guest guest, PolicySet policy)
    {
        var calm = machine with { Loans = [], Users = [], Containers = [] };
        return wish.Gpus.SelectMany(gpu => Findings(calm, gpu, guest, policy)).Where(f => _lasting.Contains(f.Code));
    }

    static ImmutableArray<Finding> Findings(Machine machine, Gpu gpu, Guest guest, PolicySet policy) =>
        Planner.Plan(machine, new(Target.Vfio, [gpu]) { For = guest }, policy) is Answer.Refused { Findings: var findings } ? findings : [];

    static IEnumerable<Finding> Mapped(AttachWish wish, Surroundings around)
    {
        if (wish.Mapping is not { } id)
            yield break;
        if (around.Mapping is not { } mapping)
        {
            yield return Of(
                "no-such-mapping", $"there is no PCI mapping {id}", [$"{ProxmoxNode.MappingFile}"], "make it under Datacenter, Resource Mappings, or with pvesh create /cluster/mapping/pci");
            yield break;
        }
        foreach (var line in mapping.Dropped)
            yield return Of("mapping-unreadable", $"{ProxmoxNode.MappingFile}, line {line.Number}: {line.Why}", [line.Text], "mend it under Datacenter, Resource Mappings");
        foreach (var gpu in wish.Gpus.Where(g => !around.Guests.Offers(mapping, g)))
            yield return Of("mapping-misses-gpu", $"mapping {id} does not offer {gpu} on node {around.Guests.Node}", [], "add the card to it under Datacenter, Resource Mappings");
        foreach (var why in around.StaleEntries)
        {
            yield return Of(
                "mapping-is-stale", $"mapping {id} does not fit node {around.Guests.Node}", [why],
                "Proxmox starts no VM with it: choose the device anew under Datacenter, Resource Mappings");
        }
    }

    static IEnumerable<Finding> Scripted(AttachWish wish, Surroundings around, VmLines settings)
    {
        if (settings.Next("hookscript") is { } script && Snippet.Of(script) == Hookscript.Another)
        {
            yield return Of(
                "hookscript-is-anothers", $"{around.Name()} has a hookscript already, and Proxmox takes one only", [$"hookscript: {script}"],
                $"call ours from it, and let it fail where ours does: {around.Program} hook \"$1\" \"$2\" || exit $?; then add the card with qm set {wish.Vm} --hostpciN …");
        }
    }

    static IEnumerable<Finding> Linked(Surroundings around)
    {
        var link = around.Snippet();
        if (around.NotSafe is { } why)
            yield return Of("not-only-roots", "root would run what others can change", [why], "install gpu-handoff where only root may write: make install puts it into /usr/local/sbin");
        var isForeign = around.Link is not null && (around.LinkedTo is { } to
            ? around.LinkWorks && !to.Split('/')[^1].StartsWith(Snippet.Name, StringComparison.Ordinal)
            : !around.Link.IsRunnable());
        if (isForeign)
        {
            yield return Of(
                "snippet-is-anothers", $"{link} is there, and it is not ours", [around.LinkedTo is { } target ? $"it is a link to {target}" : "it is no program"],
                $"put it aside: mv {link} {link}.old");
        }
    }

    /// <summary>The hostpci lines that are missing.</summary>
    static (ImmutableArray<VmLine> Lines, bool Full) Lines(AttachWish wish, Surroundings around, VmLines settings)
    {
        var (wanted, free) = (Wanted(wish, around, settings).ToList(), settings.Free().ToList());
        return wanted.Count > free.Count ? ([], true) : ([.. wanted.Select((value, i) => new VmLine($"hostpci{free[i]}", null, value))], false);
    }

    static IEnumerable<string> Wanted(AttachWish wish, Surroundings around, VmLines settings)
    {
        var flags = (IsQ35(settings) ? ",pcie=1" : "") + (wish.Primary ? ",x-vga=1" : "") + (TakesKeep(around) ? ",driver=keep" : "");
        if (wish.Mapping is { } mapping)
            return settings.Devices().Any(d => d.Mapping == mapping) ? [] : [$"mapping={mapping}{flags}"];
        // The whole slot: whatever functions the card has, and to the guest they are one device.
        return wish.Gpus.Where(g => !settings.Devices().Any(d => around.Guests.Gives(d, g))).Select(g => $"{g.Slot()}{flags}");
    }

    /// <summary>
    /// With it Proxmox binds nothing itself: no ID is left behind in new_id, and where the hook did not run, the start fails at
    /// once instead of hanging in an unbind from a busy driver (docs/decisions/0020). A node of the cluster whose Proxmox is
    /// too old for it would start the VM without the card, and of the others we do not know how old they are.
    /// </summary>
    public static bool TakesKeep(Surroundings around) => around.OtherNodes is [] && around.QemuServer >= DebianVersion.KnowsKeep;

    // pc-q35-9.2          type=q35,viommu=intel
    static bool IsQ35(VmLines settings) => settings.Next("machine")?.Contains("q35", StringComparison.Ordinal) == true;

    static IEnumerable<string> Notes(Machine machine, AttachWish wish, Surroundings around, VmLines settings, Guest guest, PolicySet policy)
    {
        foreach (var finding in wish.Gpus.SelectMany(g => Findings(machine, g, guest, policy)).DistinctBy(f => f.What))
            yield return $"at this moment the VM could not start: {finding.What}{string.Concat(finding.Evidence.Select(e => $"; {e}"))} (hint: {finding.Hint})";
        foreach (var (who, how) in Others(machine, wish, around))
            yield return $"{who} has the card too ({how}): only one of them has it at a time";
        foreach (var line in around.File()?.Config?.Dropped.Where(d => d.Text.StartsWith("hostpci", StringComparison.Ordinal)) ?? [])
            yield return $"{ProxmoxNode.PathOf(wish.Vm)}, line {line.Number}: {line.Why}: Proxmox starts the VM without this device";
        if (around.File()?.Config?.Arguments is { } arguments && Allotment.InArguments(arguments).Any())
            yield return "its args name a vfio-pci device, which neither Proxmox nor the hook hands over: let a hostpci line do it";
        if (!IsQ35(settings))
            yield return $"its machine type is {settings.Next("machine") ?? "i440fx, the default"}, which has no PCI Express: for a new guest q35 is better (qm set {wish.Vm} --machine q35), an installed Windows may want its drivers anew";
        if (settings.Next("bios") != "ovmf")
            yield return $"it boots with SeaBIOS: for a new guest UEFI is better (qm set {wish.Vm} --bios ovmf --efidisk0 STORAGE:1), an installed one does not boot after that change";
        if (around.Runs())
            yield return "it runs: the card comes with its next start from off, a reboot inside the guest is none";
        if (around.IsUnderHa || around.OtherNodes is not [])
            yield return Cluster(wish, around);
        if (!around.Storage.OffersSnippets)
            yield return "storage local does not list snippets among its content: the hook runs all the same, only the web page does not show it";
        if (around.Link is { Kind: FileKind.File })
            yield return $"{around.Snippet()} is a program of its own and no link: an upgrade has to copy it there";
        if (around.LinkedTo is { } old && old != around.Program)
            yield return $"{around.Snippet()} led to {old} until now: the hooks of all VMs of this node go by it";
        // A card that is on vfio-pci or nouveau is there because somebody wants it so. One without a driver waits for nvidia, or
        // the host never had a use for it.
        if (!around.HasNvidia && wish.Gpus.Any(g => g.IsNvidia() && g.Display().Owner.Driver is null))
        {
            yield return $"the VM gets the card, but the host cannot use it in between: no nvidia can be loaded for the kernel that runs (modprobe finds none in /lib/modules/{machine.Kernel()}); "
                + "if it shall, install the headers of that kernel, or the kernel of those headers and reboot (apt install proxmox-default-kernel proxmox-default-headers): dkms status tells for which one the driver was built";
        }
        foreach (var timer in around.SleepingTimers)
            yield return $"{timer} is not enabled, so a GPU whose VM's end nobody told stays away: systemctl enable --now {timer}";
    }

    /// <summary>Others that have the card in their configuration.</summary>
    static IEnumerable<(string Who, string How)> Others(Machine machine, AttachWish wish, Surroundings around) =>
        from gpu in wish.Gpus
        from guest in Sharers.Of(gpu, machine, around.Guests)
        where guest.Id != wish.Vm
        select (guest.ToString(), guest.Through);

    static string Cluster(AttachWish wish, Surroundings around)
    {
        var nodes = around.OtherNodes is [] ? "other nodes" : string.Join(", ", around.OtherNodes);
        return (around.IsUnderHa ? "it is under HA, which may start it on " : "it can be migrated while it is off to ")
            + $"{nodes}: there it starts only where gpu-handoff is installed and linked as {around.Snippet()}"
            + (wish.Mapping is null ? ", and where a card has this very address: --mapping NAME goes by a name that every node has" : "");
    }
}
