using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json.Serialization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>
/// The driver's nodes as they were, but with the majors of today: nvidia-uvm and nvidia-caps get new ones with every load.
/// </summary>
public sealed record MakeNodes(ImmutableArray<NamedNode> Nodes) : Step
{
    /// <summary>
    /// GPUs' own nodes, /dev/nvidiaN. N is the lowest number that is free when nvidia takes the GPU (nv.c:nv_linux_add_device_locked),
    /// so with another GPU away it may be another one than before: it is asked when the node is made.
    /// </summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public ImmutableArray<OwnNode> Own { get; init; }

    /// <summary>GPUs' own nodes that were there when the plan was made: an undo leaves them.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public ImmutableArray<string> Kept { get; init; }

    public override string Say() => All() is [var only]
        ? $"make the node {only.Path} again"
        : $"make {All().Length} nodes of the driver again ({string.Join(", ", All().Select(n => n.Path).Order(StringComparer.Ordinal))})";

    public override Step Undo() => new RemoveNodes([.. All().Where(n => Kept.IsDefault || !Kept.Contains(n.Path))]) { Own = Own, Kept = Kept };

    ImmutableArray<NamedNode> All() => Own.IsDefault ? Nodes : [.. Nodes.Union(Own.Select(o => o.Before))];

    public override Position Look(IKernel kernel) =>
        Today(kernel).All(n => kernel.NodeAt(new(n.Path))?.IsSameDevice(n.Node) == true) ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        foreach (var (path, node) in Today(kernel).DistinctBy(n => n.Path).OrderBy(n => n.Path, StringComparer.Ordinal))
        {
            var now = kernel.NodeAt(new(path));
            if (now == node)
                continue;
            if (now is not null)
                kernel.RemoveNode(new(path));
            try
            {
                kernel.MakeNode(new(path), node);
            }
            catch (KernelRefused refused) when (refused.Errno == Errno.Exists && kernel.NodeAt(new(path))?.IsSameDevice(node) == true)
            {
                // A udev rule ran nvidia-modprobe at this very moment: the node is there, with the mode that the driver wants.
            }
        }
    }

    // A node whose driver has no major now (nvidia_uvm was not loaded again) would lead nowhere, or to a stranger.
    IEnumerable<NamedNode> Today(IKernel kernel)
    {
        var devices = kernel.Read(Sys.Proc / "devices") ?? "";
        foreach (var own in Own.IsDefault ? [] : Own)
        {
            foreach (var (major, minor) in Surveyor.NvidiaNodeOf(own.Gpu, kernel))
                yield return new($"/dev/nvidia{minor.ToString(CultureInfo.InvariantCulture)}", own.Before.Node with { Major = major, Minor = minor });
        }
        foreach (var node in Nodes)
        {
            var major = node.Path switch
            {
                _ when node.Path.StartsWith("/dev/nvidia-uvm", StringComparison.Ordinal) => CharDevices.Major(devices, "nvidia-uvm"),
                _ when node.Path.StartsWith("/dev/nvidia-caps-imex", StringComparison.Ordinal) =>
                    CharDevices.Major(devices, "nvidia-caps-imex-channels"),
                _ when node.Path.StartsWith("/dev/nvidia-caps", StringComparison.Ordinal) => CharDevices.Major(devices, "nvidia-caps"),
                _ => node.Node.Major,
            };
            if (major is { } today)
                yield return node with { Node = node.Node with { Major = today } };
        }
    }
}

/// <summary>A GPU and the node that it had before it went.</summary>
public sealed record OwnNode(PciAddress Gpu, NamedNode Before);
