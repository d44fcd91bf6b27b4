using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Machines;

namespace GpuHandoff.Screen;

/// <summary>The policy that holds, as data: <c>policy show --json</c>.</summary>
/// <param name="Policy">For the whole run, and for cards of which nothing else is said; empty where cards were asked for.</param>
/// <param name="Vms">What files say of VMs; empty where cards were asked for.</param>
/// <param name="Gpus">What differs for a card; where cards were asked for, all that holds for each.</param>
sealed record PolicyReport(ImmutableArray<PolicyValue> Policy, ImmutableArray<PolicyOfGpu> Gpus, ImmutableArray<PolicyOfVm> Vms, ImmutableArray<string> Notes)
{
    public static PolicyReport Of(PolicySet said, Machine machine, ImmutableArray<Gpu>? chosen) => new(
        chosen is null ? Values(said.Effective(null, machine)) : [],
        [
            .. from gpu in chosen ?? machine.Gpus
               let values = Values(chosen is null ? said.Differing(gpu, machine) : said.Effective(gpu, machine))
               where values is not []
               select new PolicyOfGpu(gpu.Address, values),
        ],
        chosen is null ? [.. said.Vms.Select(v => v.Vm).Distinct().Select(vm => new PolicyOfVm(vm, Values(said.Effective(vm))))] : [],
        [.. said.Unmatched(machine)]);

    static ImmutableArray<PolicyValue> Values(IEnumerable<Effective> values) => [.. values.Select(v => new PolicyValue(v.Key, v.Value, v.From.ToString()))];
}

/// <summary>A key with its value, as a file would write it, and who said so.</summary>
sealed record PolicyValue(string Key, string Value, string From);

sealed record PolicyOfVm(string Vm, ImmutableArray<PolicyValue> Policy);

sealed record PolicyOfGpu(PciAddress Gpu, ImmutableArray<PolicyValue> Policy);
