using System.Collections.Immutable;
using System.CommandLine;
using GpuHandoff.Linux;
using GpuHandoff.Runs;
using GpuHandoff.Screen;
using GpuHandoff.Survey;

namespace GpuHandoff.Commands;

/// <summary>Who has what of the host, and how it stands with him.</summary>
static class LeasesCommand
{
    public static Command Build()
    {
        var json = Options.Json();
        var command = new Command("leases", "Tell which GPUs are lent to which VMs, since when, and whether the VM still has them") { json };
        command.SetAction(parsed =>
        {
            if (!RootUser.IsUs())
            {
                Say.Refused("not-root", "only root can read whom GPUs are lent to", [], "use sudo", parsed.GetValue(json));
                return ExitCode.Refused;
            }
            var (kernel, ledger) = (Place.ToLookAt(root: null), Place.Ledger(root: null));
            var leases = ledger.Leases();
            Say.Damage(ledger);
            // The whole machine is looked at only where there is something to look for.
            ImmutableArray<LeaseReport> reports = leases is []
                ? []
                : [.. Surveyor.Survey(kernel, ledger.Homes(), target: null, ledger.Wedges(), leases).Loans.Select(loan => LeaseReport.Of(loan, kernel))];
            if (parsed.GetValue(json))
                Say.Data(reports);
            else if (reports is [])
                Say.Line("no GPU is lent to a VM");
            else
                Output.Standard.Write(string.Concat(reports.Select(report => report.Text())));
            return ExitCode.Done;
        });
        return command;
    }
}
