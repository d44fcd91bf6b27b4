using System.Runtime.CompilerServices;

namespace GpuHandoff.Lab.Tests;

/// <summary>A host whose GPU's driver fails to order, booted once for all cases with faults.</summary>
public sealed class FaultyGpu : IDisposable
{
    public const string Collection = "a GPU whose driver fails to order";

    const string Parameters = "/sys/module/nvidia/parameters";

    /// <summary>Every knob at rest, whatever a case did to it.</summary>
    const string Calm = $"""
        pkill -x -f 'sleep 600'
        rm -f /run/modprobe.d/faults.conf
        for knob in remove_hang probe_fail probe_delay_ms drain persistence pin hidden_user opens_while_removing; do
            [ ! -e {Parameters}/$knob ] || echo 0 > {Parameters}/$knob
        done
        """;

    /// <summary>Until no run, no helper process and no watchdog of ours is left.</summary>
    const string AllQuiet = """
        for i in $(seq 300); do
            pgrep -x gpu-handoff > /dev/null || [ -n "$(systemctl list-units --all --plain --no-legend 'gpu-handoff*')" ] || exit 0
            sleep 0.1
        done
        exit 1
        """;

    readonly Lazy<Host> _host = new(() => new("faults", HostDriver.StandIn, LabGpu.Standard));

    public Host Host => _host.Value;

    public LabVm Vm => Host.Vm;

    public PluggedGpu Gpu => Vm.Gpus[0];

    /// <summary>Runs a case from a machine at home, sets every knob to rest, and wants the machine at home again.</summary>
    public void Case(Action act, [CallerMemberName] string name = "") => Host.Case(
        () =>
        {
            Vm.Run($"echo 'the case: {name}' > /dev/kmsg").Ok();
            try
            {
                act();
            }
            finally
            {
                Vm.Run(Calm);
                Vm.Run(AllQuiet);
            }
        },
        name);

    /// <summary>Waits until nothing of ours is at work; the answer is how long that took.</summary>
    public TimeSpan Settle() => Vm.Run(AllQuiet).Ok().Took;

    /// <summary>Turns a knob of the driver that is loaded.</summary>
    public void Set(string knob, int value) => Vm.Run($"echo {value} > {Parameters}/{knob}").Ok();

    /// <summary>Turns knobs for every time that the driver is loaded from now on.</summary>
    public void SetAtLoad(string knobs) =>
        Vm.Run($"mkdir -p /run/modprobe.d && echo 'options nvidia {knobs}' > /run/modprobe.d/faults.conf").Ok();

    /// <summary>What the kernel has said since the case began.</summary>
    public string KernelLog() => Vm.Run("dmesg | tac | sed '/the case: /q' | tac").Text;

    /// <summary>Somebody has the file open, until the command is killed; the answer is who.</summary>
    public (LabCommand Command, string Pid) Holds(string path)
    {
        var command = Vm.Start($"exec sleep 600 < {path}");
        var pid = Vm.Run($$"""
            for i in $(seq 100); do
                for p in $(pgrep -x sleep); do [ "$(readlink /proc/$p/fd/0)" != {{path}} ] || { echo $p; exit; }; done
                sleep 0.1
            done
            exit 1
            """).Ok().Text;
        return (command, pid);
    }

    public string Drivers() => $"{Host.Driver(Gpu, 0)} {Host.Driver(Gpu, 1)}";

    public string Overrides() => $"{Host.Override(Gpu, 0)} {Host.Override(Gpu, 1)}";

    public void Dispose()
    {
        if (_host.IsValueCreated)
            _host.Value.Dispose();
    }
}

[CollectionDefinition(FaultyGpu.Collection)]
public sealed class FaultyGpuUsers : ICollectionFixture<FaultyGpu>;
