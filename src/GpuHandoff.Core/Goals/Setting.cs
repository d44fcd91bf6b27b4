namespace GpuHandoff.Goals;

/// <summary>Where a value was said: a file's line, or an option of the command line.</summary>
/// <param name="Line">0: no line of a file.</param>
public sealed record Origin(string Name, int Line)
{
    public static Origin Default { get; } = new("default", 0);

    public override string ToString() => Line == 0 ? Name : $"{Name}:{Line}";
}

/// <summary>One value that somebody said, and what it makes of a policy.</summary>
/// <param name="Key">As in a file, with dots: <c>users.unit.ollama.service</c>.</param>
public sealed record Setting(string Key, Origin From, Func<Policy, Policy> Lay);
