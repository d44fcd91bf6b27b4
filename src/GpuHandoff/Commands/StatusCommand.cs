using System.Collections.Immutable;
using System.CommandLine;
using System.Text;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Linux;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Screen;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Commands;

static class StatusCommand
{
    static readonly SysPath[] _pciIds = [new("/usr/share/misc/pci.ids"), new("/usr/share/hwdata/pci.ids")];

    public static Command Build()
    {
        var (gpu, root, json, verbose) = (Options.Gpu(), Options.Root(), Options.Json(), Options.Verbose());
        var command = new Command("status", "Print one line a function: [gpu-handoff] 0000:05:00.0 driver=nvidia") { gpu, root, json, verbose };
        command.SetAction(parsed =>
        {
            var kernel = Place.ToLookAt(parsed.GetValue(root));
            return parsed.GetValue(json) || parsed.GetValue(verbose) || parsed.GetValue(gpu) is not null
                ? Surveyed(kernel, parsed.GetValue(root), parsed.GetValue(gpu), parsed.GetValue(json), parsed.GetValue(verbose))
                : Plain(Surveyor.Glance(kernel));
        });
        return command;
    }

    /// <summary>The whole of plain <c>status</c>: it runs in every hook and every prompt, so it reads no more than it says.</summary>
    static int Plain(ImmutableArray<PciFunction> functions)
    {
        var slots = functions.Where(f => f.Class.IsDisplay() && f.Id.Vendor == PciId.Nvidia).Select(f => f.Address.Slot).ToHashSet();
        return Print(functions.Where(f => slots.Contains(f.Address.Slot)));
    }

    static int Surveyed(IKernel kernel, DirectoryInfo? root, string? selector, bool json, bool verbose)
    {
        // What root wrote down only root may read.
        ILedger ledger = root is null && !RootUser.IsUs() ? new MemoryLedger() : Place.Ledger(root);
        var machine = Surveyor.Survey(kernel, ledger.Homes(), target: null, ledger.Wedges(), ledger.Leases());
        Say.Damage(ledger);
        if (selector is not null)
        {
            switch (Selection.Of(machine, selector))
            {
                case Selection.Unclear unclear:
                    Say.Refused("which-gpu", unclear.What, unclear.Evidence, unclear.Hint, json);
                    return ExitCode.Refused;
                case Selection.Chosen chosen:
                    machine = machine with { Gpus = chosen.Gpus };
                    break;
            }
        }
        if (!json && !verbose)
            return Print(machine.Gpus.SelectMany(g => g.Functions));

        machine = Surveyor.Named(machine, PciIds(kernel));
        if (json)
            Say.Data(machine);
        else
            Output.Standard.Write(MachineTable.Of(machine));
        return ExitCode.Done;
    }

    /// <summary>Names of devices, where the host has them.</summary>
    public static string PciIds(IKernel kernel) => _pciIds.Select(kernel.Read).FirstOrDefault(text => text is not null) ?? "";

    static int Print(IEnumerable<PciFunction> functions)
    {
        var lines = new StringBuilder();
        foreach (var function in functions)
            lines.Append("[gpu-handoff] ").Append(function.Address).Append(" driver=").Append(function.Owner.Driver).Append('\n');
        if (lines.Length == 0)
        {
            Say.Trouble(
                "there is no NVIDIA GPU in this machine", [],
                "gpu-handoff status --verbose tells of every display card, --gpu ADDRESS of another maker's", null);
            return ExitCode.Refused;
        }
        Output.Standard.Write(lines.ToString());
        return ExitCode.Done;
    }
}
