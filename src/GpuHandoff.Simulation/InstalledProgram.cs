using GpuHandoff.Kernel;

namespace GpuHandoff.Simulation;

/// <summary>A program in /usr/bin or /usr/sbin, and what it does.</summary>
/// <param name="Asks">Whether it only asks with these arguments: then it changes nothing and is no call to be counted.</param>
sealed record InstalledProgram(Func<IReadOnlyList<string>, bool> Asks, Func<IReadOnlyList<string>, ProgramResult> Run)
{
    /// <summary>What it does with these arguments where it reads words from its stdin, in its environment.</summary>
    public Func<IReadOnlyList<string>, string, IReadOnlyList<string>, ProgramResult>? Talk { get; init; }

    public static InvalidOperationException Untaught(string program, IReadOnlyList<string> arguments) =>
        new($"the simulator was not taught what \"{program} {string.Join(' ', arguments)}\" does");
}
