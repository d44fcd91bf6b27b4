using YamlDotNet.Core;

namespace GpuHandoff.Goals;

/// <summary>What is wrong with a policy file: where, what stands there, and the way out.</summary>
/// <param name="Line">Counts from 1; 0: the file as a whole.</param>
public sealed record PolicyError(string File, int Line, int Column, string What, string Hint)
{
    internal PolicyError(string file, Mark at, string what, string hint)
        : this(file, Math.Max(1, (int)at.Line), Math.Max(1, (int)at.Column), what, hint)
    {
    }

    public override string ToString() => Line == 0 ? $"{File}: {What}" : $"{File}:{Line}:{Column}: {What}";
}
