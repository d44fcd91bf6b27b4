using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Steps;

/// <summary>What is said to a control daemon of CUDA MPS, through the pipe that its own client program finds.</summary>
static class MpsPipe
{
    /// <summary>
    /// The client goes as the daemon's own user: where the pipe is, is that user's word, and root opens nothing in a folder
    /// that somebody else names.
    /// </summary>
    public static string Tell(MpsDaemon daemon, string word, IKernel kernel, TimeSpan budget) => kernel.RunProgram(
        Programs.SetPriv,
        ["--reuid", Number(daemon.User), "--regid", Number(daemon.Group), "--clear-groups", "--", Programs.MpsControl],
        budget, $"{word}\n", [$"{MpsDaemon.PipesName}={daemon.Pipes}"]).Output;

    // get_client_list 4217          a PID a line; a daemon that does not know the word says so in letters
    /// <summary>Clients of these servers refuse whatever would end them, by their names.</summary>
    public static void RefuseClients(MpsDaemon daemon, IEnumerable<int> servers, string what, IKernel kernel, TimeSpan budget)
    {
        foreach (var server in servers)
        {
            var clients = Tell(daemon, $"get_client_list {Number(server)}", kernel, budget).Split('\n')
                .Select(line => int.TryParse(line.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out var pid) ? pid : 0)
                .Where(pid => pid > 0)
                .Select(pid => $"{pid} {ProcessFiles.Plain(kernel.Read(Sys.Proc / Number(pid) / "comm") ?? "?")}").ToList();
            if (clients.Count > 0)
                throw new KernelRefused(what, Errno.Busy, $"it works for {string.Join(", ", clients)}");
        }
    }

    static string Number<T>(T number) where T : IFormattable => number.ToString(null, CultureInfo.InvariantCulture);
}
