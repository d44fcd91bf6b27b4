using System.Collections.Immutable;
using System.Text.Json.Serialization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Steps;

/// <summary>
/// The driver's nodes out of /dev before it goes: opening a stale one makes the kernel load the driver again
/// (fs/char_dev.c:base_probe asks for char-major-195), and it keeps new users from coming while we unload.
/// </summary>
public sealed record RemoveNodes(ImmutableArray<NamedNode> Nodes) : Step
{
    /// <summary>Those of the nodes that are a GPU's own: by the undo the GPU may have another number.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public ImmutableArray<OwnNode> Own { get; init; }

    public override string Say() => Nodes is [var only]
        ? $"remove the node {only.Path}"
        : $"remove {Nodes.Length} nodes of the driver ({string.Join(", ", Nodes.Select(n => n.Path))})";

    public override Step Undo() => Own.IsDefault ? new MakeNodes(Nodes)
        : new MakeNodes([.. Nodes.Where(n => Own.All(o => o.Before != n))]) { Own = Own };

    public override Position Look(IKernel kernel) =>
        Nodes.Any(n => kernel.NodeAt(new(n.Path)) is not null) ? Position.OnTheWay : Position.There;

    public override void Run(IKernel kernel, Limits limits)
    {
        foreach (var node in Nodes)
            kernel.RemoveNode(new(node.Path));
    }
}
