using System.CommandLine;
using GpuHandoff.Linux;
using GpuHandoff.Proxmox;
using GpuHandoff.Runs;
using GpuHandoff.Screen;
using GpuHandoff.Survey;

namespace GpuHandoff.Commands;

/// <summary>Which guests of this node may get which card, and who has it now.</summary>
static class VmsCommand
{
    public static Command Build()
    {
        var (json, root) = (Options.Json(), Options.Root());
        var command = new Command("vms", "List the VMs and containers that each GPU is for, and who has it now") { json, root };
        command.SetAction(parsed => Tell(parsed.GetValue(json), parsed.GetValue(root)));
        return command;
    }

    static int Tell(bool json, DirectoryInfo? root)
    {
        if (root is null && !RootUser.IsUs())
        {
            Say.Refused("not-root", "only root can read what Proxmox knows of its guests", [], "use sudo", json);
            return ExitCode.Refused;
        }
        var (kernel, ledger) = (Place.ToLookAt(root), Place.Ledger(root));
        var node = new ProxmoxNode(kernel);
        if (!node.IsThere())
        {
            Say.Refused("no-proxmox", "this is no host of Proxmox VE", [$"there is no {ProxmoxNode.Vms}"], "gpu-handoff status -v tells who has which GPU", json);
            return ExitCode.Refused;
        }
        var machine = Surveyor.Survey(kernel, ledger.Homes(), target: null, ledger.Wedges(), ledger.Leases());
        Say.Damage(ledger);
        machine = Surveyor.Named(machine, StatusCommand.PciIds(kernel));
        var guests = NodeGuests.Of(node, kernel);
        var shared = Sharers.Of(machine, guests).ToList();
        var hooked = Sharers.WithHookAlone(shared, guests).ToList();
        if (json)
            Say.Data(new GuestReport(guests.Node, [.. shared], [.. hooked], [.. guests.Troubles()]));
        else
            Output.Standard.Write(GuestTable.Of(shared, hooked, root is null ? null : "a recording does not tell which guests ran"));
        foreach (var trouble in json ? [] : guests.Troubles())
            Say.Line($"warning: {trouble}");
        if (shared is not [])
            return ExitCode.Done;
        Say.Line("there is no GPU in this machine");
        return ExitCode.Refused;
    }
}
