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

    // A GPU's own node by the number that it has now, too: the one that it had before may be another GPU's by this time, and stays then.
    IEnumerable<string> Today(IKernel kernel)
    {
        if (Own.IsDefault)
            return Nodes.Select(n => n.Path);
        var others = (from name in kernel.List(Sys.Driver("nvidia"))
                      where PciAddress.TryParse(name, out var gpu) && Own.All(o => o.Gpu != gpu)
                      let address = PciAddress.TryParse(name, out var parsed) ? parsed : default
                      from number in Surveyor.NvidiaNodeOf(address, kernel)
                      select PathOf(number)).ToList();
        return Nodes.Select(n => n.Path).Except(others)
            .Union(Own.SelectMany(o => Surveyor.NvidiaNodeOf(o.Gpu, kernel)).Select(PathOf));
    }

    static string PathOf((uint Major, uint Minor) number) => $"/dev/nvidia{number.Minor.ToString(CultureInfo.InvariantCulture)}";
}
