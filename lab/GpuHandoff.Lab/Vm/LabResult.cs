namespace GpuHandoff.Lab.Vm;

/// <summary>How a command in the guest ended.</summary>
/// <param name="ExitCode">128 plus the number where a signal ended it, as a shell says it.</param>
/// <param name="Took">From just before to just after the command, by the guest's clock: the figure to compare.</param>
/// <param name="RoundTrip">From asking to knowing, by the host's clock: with the agent's and the polling's share.</param>
public sealed record LabResult(string Command, int ExitCode, string Output, string Errors, TimeSpan Took, TimeSpan RoundTrip)
{
    /// <summary>The output without the newline at its end.</summary>
    public string Text => Output.TrimEnd();

    /// <summary>This result, if the command succeeded.</summary>
    /// <exception cref="LabCommandFailed">It did not.</exception>
    public LabResult Ok() => ExitCode == 0 ? this : throw new LabCommandFailed(this);

    public override string ToString() => $"$ {Command}\n{Output}{Errors}[exit {ExitCode} after {Took.TotalSeconds:f3} s]";
}

/// <summary>A command that a case relies on did not succeed.</summary>
public sealed class LabCommandFailed(LabResult result) : Exception(result.ToString())
{
    public LabResult Result { get; } = result;
}

/// <summary>A command has not ended in its time; it may hang in the kernel.</summary>
public sealed class LabCommandSilent(string command, TimeSpan limit)
    : Exception($"$ {command}\nhas not ended after {limit.TotalSeconds:f0} s");

/// <summary>The VM went away under a case, or does not answer.</summary>
public sealed class LabVmLost(string message) : Exception(message);
