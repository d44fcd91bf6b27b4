using System.Collections.Immutable;
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
    public override string Say() => Nodes is [var only]
        ? $"make the node {only.Path} again"
        : $"make {Nodes.Length} nodes of the driver again ({string.Join(", ", Nodes.Select(n => n.Path))})";

    public override Step Undo() => new RemoveNodes(Nodes);

    public override Position Look(IKernel kernel) =>
        Today(kernel).All(n => kernel.NodeAt(new(n.Path))?.IsSameDevice(n.Node) == true) ? Position.There : Position.OnTheWay;

    public override void Run(IKernel kernel, Limits limits)
    {
        foreach (var (path, node) in Today(kernel))
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
