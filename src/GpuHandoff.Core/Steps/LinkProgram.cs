using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Steps;

/// <summary>A symbolic link to a program: where it leads, and where it led before (null: there was none).</summary>
public sealed record LinkProgram(string Link, string? From, string? To) : Step
{
    public override string Say() => To is null ? $"remove the link {Link}" : $"link {Link} → {To}";

    public override Step Undo() => this with { From = To, To = From };

    public override Position Look(IKernel kernel)
    {
        var now = kernel.Link(new(Link));
        // Something that is no link is nobody's to be replaced.
        if (now is null && kernel.Exists(new(Link)))
            return Position.Elsewhere;
        return now == To ? Position.There : now is null || now == From ? Position.OnTheWay : Position.Elsewhere;
    }

    public override void Run(IKernel kernel, Limits limits)
    {
        if (To is null)
            kernel.RemoveLink(new(Link));
        else
            kernel.MakeLink(new(Link), To);
    }
}
