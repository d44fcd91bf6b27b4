using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Survey;

namespace GpuHandoff.Proxmox;

/// <summary>Why a VM that ends is started anew at once.</summary>
public enum ComesBack
{
    AfterReboot,

    /// <summary>In mode stop the backup of a VM that runs ends it, and starts it again for the copying.</summary>
    AfterBackup,
}

/// <summary>What a call of the hook asks for, found out by looking alone: most calls ask for nothing, and shall cost as much.</summary>
public abstract record HookErrand
{
    /// <summary>Nothing to do.</summary>
    /// <param name="Why">Worth a line in the task log; null: not even that.</param>
    public sealed record None(string? Why = null) : HookErrand;

    /// <summary>The start cannot succeed, or must not.</summary>
    public sealed record Refused(Answer.Refused Why) : HookErrand;

    /// <summary>A VM is about to start.</summary>
    /// <param name="Gpus">What it gets of the host's cards; may be none where something is left from its last run.</param>
    /// <param name="Neighbours">Functions in the cards' groups that the VM's configuration gives it as well.</param>
    /// <param name="Left">What is still lent to it, and that it does not get any more.</param>
    public sealed record HandOver(
        Guest Guest, ImmutableArray<PciAddress> Gpus, ImmutableArray<Allotted> Neighbours, ImmutableArray<Lease> Left, ImmutableArray<string> Notes) : HookErrand
    {
        /// <summary>To find out anew, where a mapping has more than one device to offer; null: it has not.</summary>
        public HookCall? Choice { get; init; }

        /// <summary>It starts only to be backed up (lock: backup), paused and without anybody who would use the card.</summary>
        public bool IsForBackup { get; init; }
    }

    /// <summary>A VM runs, with what is lent to it.</summary>
    public sealed record Note(Guest Guest, ImmutableArray<Lease> Leases) : HookErrand;

    /// <summary>A VM has ended, or nearly.</summary>
    /// <param name="ComesBack">What starts it anew at once; null: nothing does.</param>
    public sealed record HandBack(Guest Guest, ImmutableArray<Lease> Leases, ComesBack? ComesBack) : HookErrand
    {
        /// <summary>Why its cards stay where they are; null: they come home.</summary>
        public string? WhyKept(PolicySet said) => ComesBack switch
        {
            Proxmox.ComesBack.AfterReboot when said.OfVm(Guest.Id).Everywhere().AtReboot == AtReboot.Keep => "it is being rebooted",
            // The policy has a word in backups of VMs that are off. This one would meet its own services at the start that
            // follows, and stay off.
            Proxmox.ComesBack.AfterBackup => "its backup starts it anew",
            _ => null,
        };
    }

    const string Code = "vm-config";

    /// <summary>Finds out what there is to do. Writes nothing.</summary>
    public static HookErrand Of(HookCall call, IKernel kernel, ILedger ledger) => call.Phase switch
    {
        HookPhase.PreStart => BeforeStart(call, new(kernel) { Patience = null }, kernel, ledger),
        HookPhase.PostStart when Mine(call.Vm, kernel, ledger) is { Length: > 0 } leases => new Note(leases[0].Guest, leases),
        HookPhase.PostStop when Mine(call.Vm, kernel, ledger) is { Length: > 0 } leases => AfterStop(call, leases, kernel),
        HookPhase.PostStart or HookPhase.PostStop => new None(Damage(ledger)),
        // pre-stop may be followed by no stop at all (a shutdown that times out), so there is nothing that it could begin.
        _ => new None(),
    };

    public static Guest GuestOf(int vm, string? name = null) =>
        new(VmManager.Proxmox, vm.ToString(CultureInfo.InvariantCulture)) { Name = name };

    /// <summary>What is lent to a VM since this boot.</summary>
    static ImmutableArray<Lease> Mine(int vm, IKernel kernel, ILedger ledger) =>
        ledger.Leases() is { Length: > 0 } all && Surveyor.BootId(kernel) is var boot
            ? [.. all.Where(l => l.BootId == boot && l.Guest == GuestOf(vm))]
            : [];

    /// <summary>What may be lent to this VM as well as to another; null: all can be read.</summary>
    static string? Damage(ILedger ledger) =>
        ledger.Damaged().Where(d => !d.IsOfEarlierBoot).ToList() is { Count: > 0 } damaged ? string.Join('\n', damaged.SelectMany(d => (string[])[$"warning: {d.What}", $"hint: {d.Hint}"])) : null;

    static HookErrand BeforeStart(HookCall call, ProxmoxNode node, IKernel kernel, ILedger ledger)
    {
        var (path, config) = (ProxmoxNode.PathOf(call.Vm), (VmConfig?)null);
        try
        {
            (path, config) = Find(call, node);
        }
        catch (NotProxmox trouble)
        {
            return Unreadable(call.Vm, path, trouble.Message);
        }
        catch (KernelRefused refused)
        {
            return Unreadable(call.Vm, path, refused.Reason);
        }
        if (config is null)
        {
            // A container has a hookscript of the same kind, and its devices come another way.
            return kernel.Exists(ProxmoxNode.Containers / $"{call.Vm.ToString(CultureInfo.InvariantCulture)}.conf")
                ? new None()
                : NoSuchVm(call.Vm, path, node);
        }
        // It is only ever started for a backup, and then without its devices (VZDump/QemuServer.pm).
        if (config.IsTemplate)
            return new None();
        var wantsNone = config.Devices is [] && config.Arguments is null && config.Dropped is [];
        ImmutableArray<Lease> leases;
        try
        {
            leases = Mine(call.Vm, kernel, ledger);
        }
        catch (LedgerRefused refused) when (wantsNone)
        {
            // Another VM's GPU is no reason to keep this one off; what may still be lent to it waits for whoever mends the record.
            return new None($"warning: {refused.Message}\nhint: {refused.Hint}");
        }
        var guest = GuestOf(call.Vm, config.Name);
        Allotment allotment;
        try
        {
            var claims = new Claims(node, kernel);
            allotment = wantsNone
                ? new([], [], [])
                : Allotment.Of(call.Vm, config, path, node, claims, OthersAtWork(call.Vm, kernel, ledger), kernel);
            if (allotment.Refusals is not [])
                return new Refused(new($"{guest} cannot start", allotment.Refusals));
            if (Reserved(call.Vm, allotment, claims) is { } reserved)
                return new Refused(new($"{guest} cannot start", [reserved]));
        }
        catch (NotProxmox trouble)
        {
            return Refuse($"nobody can tell which devices {guest} gets", [trouble.Message], "look at that file: no tool of Proxmox writes one of that size");
        }
        ImmutableArray<Lease> left = [.. leases.Where(l => !allotment.Gpus.Contains(l.Gpu))];
        return allotment.Gpus is [] && left is []
            ? new None(string.Join('\n', allotment.Notes.Append(Damage(ledger)).OfType<string>()) is { Length: > 0 } why ? why : null)
            : new HandOver(guest, allotment.Gpus, allotment.Neighbours, left, allotment.Notes)
            {
                // One that has cards ran until its backup shut it down, and is on again with this start.
                IsForBackup = config.Lock == "backup" && leases.All(l => l.ForBackup),
                Choice = allotment.HasChoice ? call : null,
            };
    }

    /// <summary>The configuration that the start will go by. On the target of a migration it lies with the source still.</summary>
    static (SysPath Path, VmConfig? Config) Find(HookCall call, ProxmoxNode node)
    {
        if (call.MigratedFrom is { Length: > 0 } source && source.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '.') && source[0] != '.')
        {
            var there = ProxmoxNode.Cluster / "nodes" / source / "qemu-server" / $"{call.Vm.ToString(CultureInfo.InvariantCulture)}.conf";
            if (node.ConfigAt(there) is { } config)
                return (there, config);
        }
        return (ProxmoxNode.PathOf(call.Vm), node.Config(call.Vm));
    }

    /// <summary>What is lent to other VMs that have it, or are about to.</summary>
    static ImmutableArray<Lease> OthersAtWork(int vm, IKernel kernel, ILedger ledger)
    {
        var boot = Surveyor.BootId(kernel);
        return [.. ledger.Leases().Where(l => l.BootId == boot && l.Guest != GuestOf(vm) && Tenants.Glance(l, kernel).Tenancy != Tenancy.Gone)];
    }

    /// <summary>Proxmox would refuse it after us, with the card taken from the host for nothing.</summary>
    static Finding? Reserved(int vm, Allotment allotment, Claims claims)
    {
        if (allotment.Gpus is [])
            return null;
        foreach (var (function, key) in allotment.Functions)
        {
            if (claims.Of(function, vm) is { } who)
                return new(GpuIsLent.Check.Code, $"{key}: {function} is another VM's", [who], "stop that VM first, or give this one another GPU");
        }
        return null;
    }

    static HandBack AfterStop(HookCall call, ImmutableArray<Lease> leases, IKernel kernel)
    {
        if (RunningVm.Reboots(call.Vm, kernel))
            return new(leases[0].Guest, leases, ComesBack.AfterReboot);
        // A backup in mode stop ends a running VM and starts it anew; one that was off, and was started for the backup, stays off.
        // Called a second time, by whomever, it is the same end still.
        var startsAnew = leases.All(l => !l.ForBackup) && IsLockedForBackup(call.Vm, kernel)
            && (leases.Any(l => l.ExpectedBack is not null) || BackupStop.IsCalling(call.Vm, kernel));
        return new(leases[0].Guest, leases, startsAnew ? ComesBack.AfterBackup : null);
    }

    static bool IsLockedForBackup(int vm, IKernel kernel)
    {
        try
        {
            return new ProxmoxNode(kernel) { Patience = null }.Config(vm)?.Lock == "backup";
        }
        catch (Exception e) when (e is NotProxmox or KernelRefused)
        {
            // The card comes home then: whoever starts the VM anew asks for it anew.
            return false;
        }
    }

    static Refused NoSuchVm(int vm, SysPath path, ProxmoxNode node)
    {
        var hint = node.IsThere()
            ? "qm list shows this node's VMs"
            : "this is no host of Proxmox VE, or its cluster file system is not mounted: systemctl status pve-cluster";
        return Refuse($"there is no VM {vm} on this node", [$"{path} is not there"], hint);
    }

    static Refused Unreadable(int vm, SysPath path, string why) => Refuse(
        $"the configuration of VM {vm} cannot be read", [$"{path}: {why}"], $"look at it: qm config {vm.ToString(CultureInfo.InvariantCulture)}");

    static Refused Refuse(string what, ImmutableArray<string> evidence, string hint) => new(new(what, [new(Code, what, evidence, hint)]));
}
