using System.CommandLine;
using System.CommandLine.Parsing;
using GpuHandoff.Goals;
using GpuHandoff.Machines;

namespace GpuHandoff.Commands;

/// <summary>The options that several commands share, with one wording each.</summary>
static class Options
{
    public static Option<string?> Gpu() => new("--gpu")
    {
        Description = "Which GPU: an address (0000:05:00.0, 05:00), an index among the NVIDIA GPUs, or all",
        HelpName = "ADDRESS|INDEX|all",
    };

    public static Option<DirectoryInfo?> Root() => new("--root")
    {
        Description = "Look at a recorded machine in this folder instead of the live one",
        HelpName = "DIR",
        CustomParser = Folder,
    };

    public static Option<bool> Json() => new("--json") { Description = "Print data instead of words" };

    public static Option<bool> Verbose() => new("--verbose", "-v") { Description = "Tell everything" };

    public static Option<bool> Quiet() => new("--quiet", "-q") { Description = "Tell only what went wrong" };

    public static Option<bool> DryRun() => new("--dry-run", "-n") { Description = "Print the plan and change nothing" };

    public static Option<bool> Claim() => new("--claim")
    {
        Description = "Take to the host's driver even what was on vfio-pci before the hand-over",
    };

    public static Option<bool> StopUsers() => new("--stop-users")
    {
        Description = "Stop what uses the GPU (units, containers, processes) instead of refusing; units and containers start again on the way back",
    };

    public static Option<bool> LoseConsole() => new("--lose-console")
    {
        Description = "Hand the GPU over even where the host's text console ends with that, until the next boot",
    };

    public static Option<FreeBy?> By() => new("--policy")
    {
        Description = "How nvidia is made to let go: unload its modules, unbind this card alone, or auto, the default: unload unless another GPU needs them",
        HelpName = "unload|unbind|auto",
        CustomParser = By,
    };

    public static Option<PciAddress[]> Accept() => new("--accept-neighbour")
    {
        Description = "A stranger in the GPU's IOMMU group that may go to the VM with it (repeatable)",
        HelpName = "ADDRESS",
        CustomParser = Addresses,
    };

    public static Option<TimeSpan?> Timeout() => new("--timeout")
    {
        Description = $"How long the steps may take together, in seconds; {Limits.Default.Total.TotalSeconds} where nothing is said",
        HelpName = "SECONDS",
        CustomParser = result => Seconds(result, "--timeout", 10, 86400),
    };

    public static Option<TimeSpan?> CallTimeout() => new("--call-timeout")
    {
        Description = $"How long the kernel may take for one call before it counts as stuck, in seconds; {Limits.Default.Write.TotalSeconds} where nothing is said",
        HelpName = "SECONDS",
        CustomParser = result => Seconds(result, "--call-timeout", 1, 3600),
    };

    public static Option<TimeSpan?> Wait() => new("--wait")
    {
        Description = $"How long to wait for a VM that still has the GPU, in seconds; {Policy.Default.Patience.TotalSeconds} where nothing is said",
        HelpName = "SECONDS",
        CustomParser = result => Seconds(result, "--wait", 0, 86400),
    };

    public static Option<bool> Reset() => new("--reset")
    {
        Description = "Reset the card before vfio-pci gets it; vfio-pci does so itself when a VM opens it",
    };

    public static Option<bool> AllowRescan() => new("--allow-rescan")
    {
        Description = "Where no gentler reset brings the card back, take its whole slot off the PCI bus and scan the bus anew",
    };

    public static Option<ulong?> Bar1() => new("--bar1-size")
    {
        Description = "The size of the card's BAR 1 in the VM: 256M, 16G; put back on the way home",
        HelpName = "SIZE",
        CustomParser = Size,
    };

    static ulong? Size(ArgumentResult result) => PolicyKey.Size(Word(result), out var size) && size is not null
        ? size
        : Wrong(result, $"--bar1-size takes a power of two in M, G or T, such as 256M or 16G, not \"{Word(result)}\"", (ulong?)null);

    static FreeBy? By(ArgumentResult result) => Word(result) switch
    {
        "auto" => FreeBy.Auto,
        "unload" => FreeBy.Unload,
        "unbind" => FreeBy.Unbind,
        var other => Wrong(result, $"--policy takes unload, unbind or auto, not \"{other}\"", (FreeBy?)null),
    };

    static PciAddress[] Addresses(ArgumentResult result)
    {
        var addresses = new List<PciAddress>();
        foreach (var token in result.Tokens)
        {
            if (!PciAddress.TryParse(token.Value, out var address))
                return Wrong(result, $"\"{token.Value}\" is no address of a function, such as 0000:05:00.0", Array.Empty<PciAddress>());
            addresses.Add(address);
        }
        return [.. addresses];
    }

    static TimeSpan? Seconds(ArgumentResult result, string option, int least, int most) =>
        double.TryParse(Word(result), out var seconds) && seconds >= least && seconds <= most
            ? TimeSpan.FromSeconds(seconds)
            : Wrong(result, $"{option} takes seconds, {least} to {most}, not \"{Word(result)}\"", (TimeSpan?)null);

    static DirectoryInfo? Folder(ArgumentResult result)
    {
        var folder = new DirectoryInfo(Word(result));
        return Directory.Exists(Path.Combine(folder.FullName, "sys"))
            ? folder
            : Wrong(result, $"\"{folder}\" is no recorded machine: it has no folder sys", (DirectoryInfo?)null);
    }

    static string Word(ArgumentResult result) => result.Tokens is [var token] ? token.Value : "";

    static T Wrong<T>(ArgumentResult result, string message, T value)
    {
        result.AddError(message);
        return value;
    }
}
