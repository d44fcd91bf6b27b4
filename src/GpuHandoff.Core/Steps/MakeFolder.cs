using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Steps;

/// <summary>A folder that is not there yet.</summary>
public sealed record MakeFolder(string Path) : Step
{
    public override string Say() => $"make the folder {Path}";

    public override Step Undo() => new RemoveFolder(Path);

    public override Position Look(IKernel kernel) => kernel.StatusOf(new(Path))?.Kind switch
    {
        FileKind.Folder => Position.There,
        null => Position.OnTheWay,
        _ => Position.Elsewhere,
    };

    public override void Run(IKernel kernel, Limits limits) => kernel.MakeFolder(new(Path));
}
