using GpuHandoff.Kernel;

namespace GpuHandoff.Linux;

/// <summary>Starts <c>recover</c> for a run that was killed, outside of whatever killed it.</summary>
static class Rescue
{
    const string SystemdRun = "/usr/bin/systemd-run";

    public static void Start()
    {
        const string ourselves = "/proc/self/exe";
        try
        {
            // As a unit of its own it outlives the task, the session and the service that the killed run belonged to.
            // There our own link would be systemd's, and with --no-block nobody would hear of it.
            if (Directory.Exists("/run/systemd/system") && File.Exists(SystemdRun) && Watchdog.Program(ourselves) is { } program)
            {
                using var unit = Spawned.Start(
                    SystemdRun,
                    ["--quiet", "--collect", "--no-block", $"--unit=gpu-handoff-watchdog-{Environment.ProcessId}", "--", program, "recover"],
                    talks: false, complains: false);
                if (unit.Wait() == 0)
                    return;
            }
            // A program that an upgrade has taken away can still start itself.
            using var rescue = Spawned.Start(ourselves, ["recover", "--quiet"], talks: false, complains: false);
            rescue.Wait();
        }
        catch (KernelRefused)
        {
            // Nobody is left to be told; the boot unit and the next run look at the journal again.
        }
    }
}
