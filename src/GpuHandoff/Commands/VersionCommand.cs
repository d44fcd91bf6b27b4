using System.CommandLine;
using System.Reflection;
using GpuHandoff.Linux;
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
            Output.Standard.Write($"gpu-handoff {version?.InformationalVersion}\n");
            return ExitCode.Done;
        });
        return command;
    }
}
