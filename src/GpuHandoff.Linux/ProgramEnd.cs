namespace GpuHandoff.Linux;

/// <summary>How a program's run came to an end, if it did.</summary>
abstract record ProgramEnd
{
    public sealed record Ended(int Exit, string Output) : ProgramEnd;

    /// <summary>It could not be started, or took too long and was ended.</summary>
    public sealed record Refused(int Errno, string Reason) : ProgramEnd;

    /// <summary>It took too long, and SIGKILL did not end it.</summary>
    public sealed record Silent : ProgramEnd;

    const string Word = "ended";

    public string[] ToMessage() => this switch
    {
        Ended(var exit, var output) => ["0", "", Word, exit.ToString(), output],
        Refused(var errno, var reason) => [errno.ToString(), reason],
        _ => ["0", "", "silent"],
    };

    /// <summary>The other way round.</summary>
    /// <param name="rest">A message without its errno and reason.</param>
    public static ProgramEnd OfMessage(ReadOnlySpan<string> rest) =>
        rest is [Word, var exit, var output] ? new Ended(int.Parse(exit), output) : new Silent();
}
