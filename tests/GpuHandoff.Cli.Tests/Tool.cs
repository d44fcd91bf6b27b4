using System.Diagnostics;

namespace GpuHandoff.Cli.Tests;

/// <summary>The built program, run as a user runs it.</summary>
static class Tool
{
    static readonly TimeSpan _limit = TimeSpan.FromSeconds(60);

    /// <summary>The repository, found from where the tests are built.</summary>
    public static string Repository { get; } = FindRepository();

    public static (int Exit, string Out, string Err) Run(params string[] arguments) => Run(("LANG", "C"), arguments);

    public static (int Exit, string Out, string Err) Run((string Name, string Value) variable, params string[] arguments) =>
        Run(variable, [], arguments);

    /// <summary>With something to read on its stdin, which then ends.</summary>
    public static (int Exit, string Out, string Err) Run((string Name, string Value) variable, byte[] input, string[] arguments)
    {
        var start = new ProcessStartInfo(Path.Combine(AppContext.BaseDirectory, "gpu-handoff"), arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment[variable.Name] = variable.Value;
        using var process = Process.Start(start)!;
        var error = process.StandardError.ReadToEndAsync();
        try
        {
            process.StandardInput.BaseStream.Write(input);
            process.StandardInput.Close();
        }
        catch (IOException)
        {
            // It has ended without reading all of it, as it may.
        }
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit(_limit).ShouldBeTrue("the program did not end");
        return (process.ExitCode, output, error.Result);
    }

    static string FindRepository()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder.FullName, "GpuHandoff.slnx")))
            folder = folder.Parent ?? throw new InvalidOperationException("no GpuHandoff.slnx above the tests");
        return folder.FullName;
    }
}
