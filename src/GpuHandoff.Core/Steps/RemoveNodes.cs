using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json.Serialization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

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

    /// <summary>Nodes that were there before the step that this undoes.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public ImmutableArray<string> Kept { get; init; }

    public override string Say() => Nodes is [var only]
        ? $"remove the node {only.Path}"
        : $"remove {Nodes.Length} nodes of the driver ({string.Join(", ", Nodes.Select(n => n.Path))})";

    public override Step Undo() => new MakeNodes(Nodes) { Own = Own };

    public override Position Look(IKernel kernel) =>
        Today(kernel).Any(path => kernel.NodeAt(new(path)) is not null) ? Position.OnTheWay : Position.There;

    public override void Run(IKernel kernel, Limits limits)
    {
        foreach (var path in Today(kernel).Order(StringComparer.Ordinal))
            kernel.RemoveNode(new(path));
    }

    // A GPU's own node by the number that it has now, too, where that was not there before. No other GPU is asked: one may be stuck.
    IEnumerable<string> Today(IKernel kernel) => Own.IsDefault ? Nodes.Select(n => n.Path)
        : Nodes.Select(n => n.Path).Union(Own.SelectMany(o => Surveyor.NvidiaNodeOf(o.Gpu, kernel)).Select(PathOf).Except(Kept.IsDefault ? [] : Kept));

    static string PathOf((uint Major, uint Minor) number) => $"/dev/nvidia{number.Minor.ToString(CultureInfo.InvariantCulture)}";
}
