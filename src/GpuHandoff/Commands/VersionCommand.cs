using System.CommandLine;
using System.Reflection;
using GpuHandoff.Runs;

namespace GpuHandoff.Commands;

static class VersionCommand
{
    public static Command Build()
    {
        var command = new Command("version", "Print the version");
        command.SetAction(_ =>
        {
            var version = typeof(VersionCommand).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>();
            Console.Out.WriteLine($"gpu-handoff {version?.InformationalVersion}");
            return ExitCode.Done;
        });
        return command;
    }
}
