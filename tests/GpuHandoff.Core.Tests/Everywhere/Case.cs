using System.Collections.Immutable;
using GpuHandoff.Goals;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>
/// A machine, and what happens on it: small, readable and enough to play it again. What makes no sense on the machine (a
/// fourth function that is not there, a visitor to a node that does not exist) does nothing, so that every part can be
/// left out and the rest keeps its meaning.
/// </summary>
sealed record Case(HostSpec Host, ImmutableArray<Mess> Messes, ImmutableArray<Holder> Holders, ImmutableArray<Errand> Errands)
{
    public override string ToString() => string.Join(
        "\n  ", (string[])[Host.ToString(), .. Messes.Select(m => m.ToString()), .. Holders.Select(h => h.ToString()), .. Errands.Select(t => t.ToString())]);

    /// <summary>The same with one thing less, the biggest pieces first.</summary>
    public IEnumerable<Case> Smaller()
    {
        foreach (var errands in Without(Errands).Where(t => t is not []))
            yield return this with { Errands = errands };
        foreach (var messes in Without(Messes))
            yield return this with { Messes = messes };
        foreach (var holders in Without(Holders))
            yield return this with { Holders = holders };
        foreach (var host in Host.Smaller())
            yield return this with { Host = host };
        for (var i = 0; i < Errands.Length; i++)
        {
            foreach (var errand in Errands[i].Smaller())
                yield return this with { Errands = Errands.SetItem(i, errand) };
        }
    }

    public static IEnumerable<ImmutableArray<T>> Without<T>(ImmutableArray<T> items)
    {
        for (var i = 0; i < items.Length; i++)
            yield return items.RemoveAt(i);
    }
}

enum CardKind
{
    /// <summary>Graphics and audio.</summary>
    Plain,

    /// <summary>Graphics, audio, USB and UCSI.</summary>
    FourFunctions,

    /// <summary>A 3D controller alone.</summary>
    Datacenter,

    /// <summary>Another maker's.</summary>
    Amd,
}

/// <summary>A stranger in a card's IOMMU group.</summary>
enum Stranger
{
    None,
    Disk,
    Usb,
}

/// <summary>A card, and who shares its group.</summary>
/// <param name="WithFirst">In the IOMMU group of the first card.</param>
sealed record CardSpec(CardKind Kind, Stranger Stranger = Stranger.None, bool WithFirst = false)
{
    public override string ToString() =>
        Kind + (Stranger == Stranger.None ? "" : $"+{Stranger}") + (WithFirst ? " in the first one's group" : "");
}

/// <summary>Which of NVIDIA's modules are loaded at boot.</summary>
enum Stack
{
    All,
    WithoutUvm,
    WithoutDrm,
    DriverAndUvm,
    DriverOnly,
    None,
    Nouveau,
}

enum Vfio
{
    Module,
    BuiltIn,
    Missing,
}

sealed record HostSpec(ImmutableArray<CardSpec> Cards, string Version, Stack Stack)
{
    public bool? Modeset { get; init; }
    public bool? Fbdev { get; init; }
    public bool DebianNames { get; init; }
    public Vfio Vfio { get; init; }
    public bool WithIgpu { get; init; }
    public bool FirmwareConsole { get; init; }
    public bool NoIommu { get; init; }
    public bool NoUnload { get; init; }

    /// <summary>The drivers of audio, USB and UCSI functions are not loaded at boot.</summary>
    public bool BareSiblings { get; init; }

    public override string ToString()
    {
        (bool Said, string Word)[] words =
        [
            (Modeset is not null, $"modeset={Modeset}"), (Fbdev is not null, $"fbdev={Fbdev}"), (DebianNames, "Debian's names"),
            (Vfio != Vfio.Module, $"vfio-pci {Vfio}"), (WithIgpu, "an integrated GPU"), (FirmwareConsole, "the firmware's console"),
            (NoIommu, "no IOMMU"), (NoUnload, "no module unloading"), (BareSiblings, "siblings without a driver"),
        ];
        return $"host: [{string.Join(", ", Cards)}] nvidia {Version} {Stack}"
            + string.Concat(words.Where(w => w.Said).Select(w => $", {w.Word}"));
    }

    public IEnumerable<HostSpec> Smaller()
    {
        foreach (var cards in Case.Without(Cards).Where(c => c is not []))
            yield return this with { Cards = cards };
        for (var i = 0; i < Cards.Length; i++)
        {
            if (Cards[i].Kind != CardKind.Plain)
                yield return this with { Cards = Cards.SetItem(i, Cards[i] with { Kind = CardKind.Plain }) };
            if (Cards[i].Stranger != Stranger.None)
                yield return this with { Cards = Cards.SetItem(i, Cards[i] with { Stranger = Stranger.None }) };
            if (Cards[i].WithFirst)
                yield return this with { Cards = Cards.SetItem(i, Cards[i] with { WithFirst = false }) };
        }
        HostSpec[] plainer =
        [
            this with { Stack = Stack.All }, this with { Modeset = null }, this with { Fbdev = null }, this with { DebianNames = false },
            this with { Vfio = Vfio.Module }, this with { WithIgpu = false }, this with { FirmwareConsole = false },
            this with { NoIommu = false }, this with { NoUnload = false }, this with { BareSiblings = false },
            this with { Version = "550.163.01" },
        ];
        foreach (var host in plainer.Where(h => h != this))
            yield return host;
    }
}

enum MessKind
{
    /// <summary>An override that somebody left.</summary>
    Override,

    /// <summary>Taken from its driver by hand.</summary>
    Unbound,

    /// <summary>On vfio-pci by hand, with the override left standing.</summary>
    VfioKept,

    /// <summary>On vfio-pci by hand, without an override.</summary>
    VfioLoose,

    /// <summary>Its ID was given to vfio-pci, as Proxmox does.</summary>
    DynamicId,

    /// <summary>A module taken down by hand.</summary>
    Unloaded,

    /// <summary>A node removed by hand.</summary>
    NodeGone,
}

/// <summary>What somebody did to the machine before we came.</summary>
sealed record Mess(MessKind Kind, int Card, int Function, string Text = "")
{
    public override string ToString() => $"before: {Kind} {Card}.{Function} {Text}".TrimEnd();
}

enum HolderKind
{
    Card,
    Control,
    Modeset,
    Uvm,
    UvmWithCard,
    Drm,
    Sound,
    I2c,
    Persistence,
    Kernel,
    Vm,

    /// <summary>An unprivileged process that passes for another (<see cref="Everywhere.Impostor"/>), on a host that has the real ones, too.</summary>
    Impostor,

    /// <summary>A process that cannot be looked at, and has nothing of the card open.</summary>
    Unreadable,

    /// <summary>One that cannot be looked at, and has the card open.</summary>
    UnreadableUser,

    /// <summary>A descriptor with O_PATH, which holds nothing.</summary>
    PathOnly,

    /// <summary>A service on the card, which a run with StopUsers stops and starts again.</summary>
    Service,
}

/// <summary>Who uses a card.</summary>
/// <param name="Seconds">How long; 0: for ever.</param>
/// <param name="Shape">Of an impostor: which of them.</param>
sealed record Holder(HolderKind Kind, int Card, int Seconds, int Shape = 0)
{
    public override string ToString() => $"user: {Kind}{(Kind == HolderKind.Impostor ? $" ({Impostor.All[Shape]})" : "")} of card {Card}{(Seconds == 0 ? "" : $" for {Seconds} s")}";
}

enum MishapKind
{
    Refuse,
    Ignore,
    RefuseAfterwards,
    Silent,
    SilentThenDone,

    /// <summary>The call takes a minute, and works.</summary>
    Slow,

    /// <summary>We are killed before the call.</summary>
    DieBefore,

    /// <summary>We are killed right after the call, before anything could be written down.</summary>
    DieAfter,

    /// <summary>Somebody asks us to stop.</summary>
    Stop,

    /// <summary>A poller opens the card's nodes.</summary>
    Visit,

    /// <summary>A poller opens the card's sound device.</summary>
    Listen,

    /// <summary>A process opens the card right before a look (<c>Call</c> counts looks here), through a node of a container's.</summary>
    VisitLook,

    /// <summary>The same with the sound device, through a descriptor that no table shows.</summary>
    ListenLook,

    /// <summary>The same with a VM, if the card is on vfio-pci.</summary>
    StartVmLook,

    /// <summary>From here on systemd does not answer.</summary>
    ManagerHangs,

    /// <summary>Somebody starts a VM with the card, if it is on vfio-pci.</summary>
    StartVm,

    /// <summary>A udev rule loads NVIDIA's modules.</summary>
    Modprobe,

    /// <summary>A udev rule makes NVIDIA's nodes anew.</summary>
    MakeNodes,

    /// <summary>From here on NVIDIA's driver does not come up on the card.</summary>
    ProbeFails,

    /// <summary>The card falls off the bus, and stays in the list: its registers read as ones.</summary>
    Lost,

    /// <summary>Another administrator hands another card over meanwhile.</summary>
    OtherRun,
}

/// <summary>What goes wrong in a errand, and when.</summary>
/// <param name="Call">Which of the errand's calls, from 1.</param>
sealed record Mishap(MishapKind Kind, int Call, int Card = 0, int Seconds = 0)
{
    public override string ToString() => $"{Kind}@{Call}" + Kind switch
    {
        MishapKind.Visit or MishapKind.Listen or MishapKind.StartVm => $"(card {Card}{(Seconds == 0 ? "" : $", {Seconds} s")})",
        MishapKind.ProbeFails or MishapKind.Lost or MishapKind.OtherRun => $"(card {Card})",
        _ => "",
    };
}

/// <summary>One run of the tool.</summary>
/// <param name="Card">Which card; -1: all of NVIDIA's.</param>
sealed record Errand(Target Target, int Card, ImmutableArray<Mishap> Mishaps)
{
    public FreeBy By { get; init; }
    public bool Accept { get; init; }
    public bool Claim { get; init; }
    public bool StopUsers { get; init; }

    public override string ToString() =>
        $"{(Target == Target.Vfio ? "to_vfio" : "to_nvidia")} {(Card < 0 ? "all" : $"card {Card}")}"
        + (By == FreeBy.Auto ? "" : $" {By}") + (Accept ? " accept" : "") + (Claim ? " claim" : "") + (StopUsers ? " stop-users" : "")
        + (Mishaps is [] ? "" : $": {string.Join(", ", Mishaps)}");

    public IEnumerable<Errand> Smaller()
    {
        foreach (var mishaps in Case.Without(Mishaps))
            yield return this with { Mishaps = mishaps };
        Errand[] plainer =
        [
            this with { By = FreeBy.Auto }, this with { Accept = false }, this with { Claim = false }, this with { StopUsers = false },
            this with { Card = Card > 0 ? 0 : Card },
        ];
        foreach (var errand in plainer.Where(t => t != this))
            yield return errand;
        for (var i = 0; i < Mishaps.Length; i++)
        {
            if (Mishaps[i].Call > 1)
                yield return this with { Mishaps = Mishaps.SetItem(i, Mishaps[i] with { Call = Mishaps[i].Call - 1 }) };
        }
    }
}
