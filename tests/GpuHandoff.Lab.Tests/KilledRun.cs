namespace GpuHandoff.Lab.Tests;

/// <summary>A run that is killed with SIGKILL at a line of its log; its helper process lives on.</summary>
static class KilledRun
{
    /// <summary>Kills the run as soon as its log announces the step. Fails where the step never comes.</summary>
    /// <param name="before">A command of bash's that comes right before the kill; <c>$p</c> is the run's PID.</param>
    public static void At(Host host, string step, string arguments, string before = ":") => host.Vm.Run($$"""
        bash -c '
            touch /var/log/gpu-handoff.log
            exec 3< <(exec tail -n0 -F /var/log/gpu-handoff.log 2> /dev/null); t=$!
            gpu-handoff {{arguments}} --quiet > /run/killed-run 2>&1 & p=$!
            seen=1
            while read -r -t 60 line <&3; do
                case $line in *"{{step}}"*) seen=0; break;; esac
            done
            {{before}}
            kill -KILL $p 2> /dev/null
            wait $p 2> /dev/null
            kill $t
            exit $seen
        '
        """).Ok();
}
