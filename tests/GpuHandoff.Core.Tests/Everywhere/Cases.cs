using System.Collections.Immutable;
using FsCheck;
using FsCheck.Fluent;
using GpuHandoff.Goals;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>Makes cases up. Weights are set so that most machines can hand a card over, and most errands meet some mishap.</summary>
static class Cases
{
    public static Arbitrary<Case> Any { get; } = Arb.From(Whole(), c => c.Smaller());

    static Gen<Case> Whole() =>
        from host in Hosts()
        from messes in Few(Messes(host.Cards.Length), (60, 0), (25, 1), (15, 3))
        from holders in Few(Holders(host.Cards.Length), (75, 0), (20, 1), (5, 2))
        from errands in Few(Errands(host.Cards.Length), (30, 1), (40, 2), (20, 3), (10, 4))
        select new Case(host, messes, holders, [.. errands.Select(Alternately)]);

    // Out first, then back: a card that is where it is wanted is soon told.
    static Errand Alternately(Errand errand, int index) => index % 2 == 0 ? errand : errand with { Target = errand.Target == Target.Vfio ? Target.Host : Target.Vfio };

    static Gen<HostSpec> Hosts() =>
        from cards in Few(Cards(), (55, 1), (30, 2), (15, 3))
        from version in Gen.Elements(
            "535.261.03", "550.163.01", "570.211.01", "580.94.18", "580.95.05", "580.126.20", "590.44.01", "595.45.04")
        from stack in Weighted(
            (60, Stack.All), (8, Stack.WithoutUvm), (8, Stack.WithoutDrm), (4, Stack.DriverAndUvm), (8, Stack.DriverOnly), (6, Stack.None), (6, Stack.Nouveau))
        from modeset in Weighted<bool?>((40, null), (40, true), (20, false))
        from fbdev in Weighted<bool?>((60, null), (30, true), (10, false))
        from vfio in Weighted((80, Vfio.Module), (15, Vfio.BuiltIn), (5, Vfio.Missing))
        from debian in Rarely(10)
        from igpu in Rarely(20)
        from console in Rarely(20)
        from noIommu in Rarely(3)
        from noUnload in Rarely(5)
        from bare in Rarely(10)
        select new HostSpec(cards, version, stack)
        {
            Modeset = modeset,
            Fbdev = fbdev,
            Vfio = vfio,
            DebianNames = debian,
            WithIgpu = igpu,
            FirmwareConsole = console,
            NoIommu = noIommu,
            NoUnload = noUnload,
            BareSiblings = bare,
        };

    static Gen<CardSpec> Cards() =>
        from kind in Weighted((55, CardKind.Plain), (25, CardKind.FourFunctions), (10, CardKind.Datacenter), (10, CardKind.Amd))
        from stranger in Weighted((80, Stranger.None), (5, Stranger.Disk), (15, Stranger.Usb))
        from shared in Rarely(15)
        select new CardSpec(kind, stranger, shared);

    static Gen<Mess> Messes(int cards) =>
        from kind in Gen.Elements(Enum.GetValues<MessKind>())
        from card in Gen.Choose(0, cards - 1)
        from function in Gen.Choose(0, 3)
        from text in kind switch
        {
            MessKind.Override => Gen.Elements("none", "foo", "vfio-pci", "nvidia", "pci-stub"),
            MessKind.Unloaded => Gen.Elements("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia", "snd_hda_intel", "xhci_pci"),
            MessKind.NodeGone => Gen.Elements("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"),
            _ => Gen.Constant(""),
        }
        select new Mess(kind, card, function, text);

    static Gen<Holder> Holders(int cards) =>
        from kind in Gen.Elements(Enum.GetValues<HolderKind>())
        from card in Gen.Choose(0, cards - 1)
        from seconds in Gen.Elements(0, 0, 1, 30)
        from shape in Gen.Choose(0, Impostor.All.Length - 1)
        select new Holder(kind, card, seconds, shape);

    static Gen<Errand> Errands(int cards) =>
        from target in Weighted((70, Target.Vfio), (30, Target.Host))
        from card in Gen.Choose(-1, cards - 1)
        from way in Weighted((50, FreeBy.Auto), (25, FreeBy.Unload), (25, FreeBy.Unbind))
        from accept in Rarely(40)
        from claim in Rarely(20)
        from stops in Rarely(25)
        from mishaps in Few(Mishaps(cards), (45, 0), (40, 1), (10, 2), (5, 3))
        select new Errand(target, card, mishaps) { By = way, Accept = accept, Claim = claim, StopUsers = stops };

    static Gen<Mishap> Mishaps(int cards) =>
        from kind in Weighted(
            (20, MishapKind.Refuse), (12, MishapKind.Ignore), (12, MishapKind.RefuseAfterwards), (4, MishapKind.Silent),
            (3, MishapKind.SilentThenDone), (6, MishapKind.Slow), (8, MishapKind.DieBefore), (8, MishapKind.DieAfter), (6, MishapKind.Stop),
            (8, MishapKind.Visit), (2, MishapKind.Listen), (2, MishapKind.StartVm), (4, MishapKind.Modprobe), (3, MishapKind.MakeNodes),
            (3, MishapKind.ProbeFails), (2, MishapKind.Lost), (3, MishapKind.OtherRun),
            (8, MishapKind.VisitLook), (6, MishapKind.ListenLook), (4, MishapKind.StartVmLook), (6, MishapKind.ManagerHangs))
        from call in kind is MishapKind.VisitLook or MishapKind.ListenLook or MishapKind.StartVmLook
            ? Gen.Choose(1, 1500)
            : Gen.Frequency((60, Gen.Choose(1, 8)), (30, Gen.Choose(8, 16)), (10, Gen.Choose(16, 30)))
        from card in Gen.Choose(0, cards - 1)
        from seconds in Gen.Elements(0, 1, 1, 30)
        select new Mishap(kind, call, card, seconds);

    static Gen<ImmutableArray<T>> Few<T>(Gen<T> items, params (int Weight, int Count)[] counts) =>
        Gen.Frequency(counts.Select(c => (c.Weight, items.ArrayOf(c.Count).Select(a => a.ToImmutableArray()))));

    static Gen<T> Weighted<T>(params (int Weight, T Value)[] values) =>
        Gen.Frequency(values.Select(v => (v.Weight, Gen.Constant(v.Value))));

    static Gen<bool> Rarely(int percent) => Weighted((100 - percent, false), (percent, true));
}
