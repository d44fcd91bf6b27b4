using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Steps;

/// <summary>A folder that was made for nothing else. With somebody's file in it it is that one's, and stays.</summary>
public sealed record RemoveFolder(string Path) : Step
{
    public override string Say() => $"remove the empty folder {Path}";

    public override Step Undo() => new MakeFolder(Path);

    public override Position Look(IKernel kernel) =>
        kernel.StatusOf(new(Path)) is { Kind: FileKind.Folder } && kernel.List(new(Path)) is [] ? Position.OnTheWay : Position.There;

    public override void Run(IKernel kernel, Limits limits) => kernel.RemoveFolder(new(Path));
}
