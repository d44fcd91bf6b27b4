using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Machines;

namespace GpuHandoff.Checks;

static class BarSizeNotOffered
{
    public static Check Check { get; } = new(
        "bar-size-not-offered", Target.Vfio,
        "A memory window can only be given a size that the card lists (resizable BAR), and only while nobody uses the card.",
        q => q.Policy.For(q.Gpu).Bar1 is not { } wanted ? [] : q.Gpu.Functions.Where(f => f.Class.IsDisplay()).SelectMany(f => Of(q, f, wanted)));

    static IEnumerable<Finding> Of(Question q, PciFunction function, ulong wanted)
    {
        if (function.Bar1() == wanted)
            yield break;
        if (!function.Bar1Sizes.Contains(wanted))
        {
            yield return new(
                "bar-size-not-offered",
                $"{function} cannot have a BAR 1 of {Bar.Say(wanted)}",
                [
                    function.Bar1Sizes is []
                        ? $"there is no /sys/bus/pci/devices/{function.Address}/resource1_resize: the card or the kernel cannot resize it"
                        : $"it has {Bar.Say(function.Bar1())} and offers {string.Join(", ", function.Bar1Sizes.Select(Bar.Say))}",
                ],
                function.Bar1Sizes is []
                    ? "leave --bar1-size out; a newer VBIOS may bring resizable BAR"
                    : "take one of these sizes, or leave --bar1-size out");
        }
        var users = q.Machine.Users.Where(u => function.IsOnVfio() && function.Nodes.Any(n => n.Node.IsSameDevice(u.Node)))
            .Select(u => u.ToString()).Distinct().ToImmutableArray();
        if (users is not [])
        {
            yield return new(
                "bar-size-not-offered", $"a VM has {function}: its BAR 1 cannot be resized now", users, "shut the VM down first");
        }
    }
}
