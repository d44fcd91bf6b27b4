namespace GpuHandoff.Linux;

/// <summary>How a program's run came to an end, if it did.</summary>
abstract record ProgramEnd
{
    public sealed record Ended(int Exit, string Output) : ProgramEnd;

    /// <summary>It could not be started.</summary>
    public sealed record Refused(int Errno, string Reason) : ProgramEnd;

    /// <summary>It took too long, and SIGKILL has ended it, or has not.</summary>
    public sealed record Silent(int Pid, bool IsOver) : ProgramEnd;

    const string Word = "ended";
    const string Still = "silent";

    public string[] ToMessage() => this switch
    {
        Ended(var exit, var output) => ["0", "", Word, exit.ToString(), output],
        Refused(var errno, var reason) => [errno.ToString(), reason],
        Silent(var pid, var isOver) => ["0", "", Still, pid.ToString(), isOver ? "over" : ""],
        _ => throw new InvalidOperationException("a program ends in one of three ways"),
    };

    /// <summary>The other way round.</summary>
    /// <param name="rest">A message without its errno and reason.</param>
    public static ProgramEnd OfMessage(ReadOnlySpan<string> rest) =>
        rest is [Still, var pid, var isOver] ? new Silent(int.Parse(pid), isOver.Length > 0)
        : rest is [Word, var exit, var output] ? new Ended(int.Parse(exit), output)
        : new Refused(0, "the helper process answered something else");
}
