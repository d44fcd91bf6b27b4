using System.Runtime.CompilerServices;

namespace GpuHandoff.Lab.Tests;

/// <summary>
/// A host with a console on a VGA card, an NVIDIA GPU beside it, and everybody who may use the one or the other: units,
/// containers, processes. Booted once for all cases of the console and of the users.
/// </summary>
public sealed class HostAtWork : IDisposable
{
    public const string Collection = "a host at work";

    /// <summary>Without a cursor: it blinks, and a reset of the terminal shows it again.</summary>
    public const string KernelArguments = "vt.global_cursor_default=0";

    /// <summary>The image has no prompt on the screen, which no other case needs.</summary>
    public const string Prompt = """
        rm -f /etc/systemd/system/getty@tty1.service
        systemctl daemon-reload && systemctl start getty@tty1.service
        """;

    /// <summary>
    /// folding.service is wanted by the default target: systemd forgets how often a unit was started when nothing names it.
    /// The container's root is one static program. As PID 1 it would be deaf to SIGTERM without a handler.
    /// </summary>
    const string MoveIn = $$"""
        set -e
        cp /usr/local/lib/lab/daemons/* /usr/bin/
        mkdir -p /etc/systemd/system/multi-user.target.wants /var/lib/render/bin
        ln -s ../folding.service /etc/systemd/system/multi-user.target.wants/
        {{Prompt}}
        cp /bin/busybox /var/lib/render/bin/
        """;

    /// <summary>Nobody uses a card, whatever a case left behind.</summary>
    const string MoveOut = """
        rm -f /etc/gpu-handoff.yaml
        systemctl stop nvidia-persistenced nvidia-mps ollama jellyfin folding trainer 'gpu-handoff-host@*.target' 'mps*' 2> /dev/null
        systemctl reset-failed 2> /dev/null
        for id in 107 115 120; do [ ! -e /sys/fs/cgroup/lxc/$id ] || pct stop $id; done
        [ ! -e /run/podman-in-use ] || podman rm --force --time 1 --all > /dev/null
        rm -f /run/podman-in-use
        fuser -k -KILL /dev/nvidia0 2> /dev/null
        rm -rf /tmp/mps
        true
        """;

    /// <summary>The screen's card on its driver: whatever went wrong in a case, the next one shall have its console.</summary>
    string Relight => $"""
        cd /sys/bus/pci/devices/{Vm.Display} && if [ ! -e driver/module/drivers/pci:bochs-drm ]; then
            gpu-handoff to_nvidia --quiet --gpu {Vm.Display}
            echo > driver_override; [ ! -e driver ] || echo {Vm.Display} > driver/unbind; echo {Vm.Display} > /sys/bus/pci/drivers_probe
        fi
        """;

    readonly Lazy<Host> _host = new(() =>
    {
        var host = new Host(
            new LabMachine
            {
                Name = "at-work",
                Display = LabDisplay.Vga,
                KernelArguments = KernelArguments,
                Files =
                [
                    .. LabFile.FromFolder(Path.Combine(LabPlaces.Repository, "lab", "workloads"), "/"),
                    .. LabFile.FromFolder(Path.Combine(LabPlaces.Repository, "packaging", "systemd"), "/etc/systemd/system"),
                ],
            },
            HostDriver.Nvidias);
        host.Vm.Run(MoveIn).Ok();
        return host;
    });

    public Host Host => _host.Value;

    public LabVm Vm => Host.Vm;

    public PluggedGpu Gpu => Vm.Gpus[0];

    /// <summary>Runs a case with NVIDIA's own modules on the GPU.</summary>
    public void Case(Action act, [CallerMemberName] string name = "")
    {
        Host.Use(HostDriver.Nvidias);
        Host.Case(
            () =>
            {
                try
                {
                    act();
                }
                finally
                {
                    Vm.Run(Relight).Ok();
                }
            },
            name);
    }

    /// <summary>Runs a case with the stand-in, whose card a process can truly have open. Nobody has it before, nor afterwards.</summary>
    public void CaseOfUsers(Action act, [CallerMemberName] string name = "")
    {
        Host.Use(HostDriver.StandIn);
        Host.Case(
            () =>
            {
                try
                {
                    act();
                }
                finally
                {
                    Vm.Run(Relight).Ok();
                    Vm.Run(MoveOut).Ok();
                }
            },
            name);
    }

    /// <summary>What the screen shows when it has something to show and no longer changes: the kernel draws a little later than a write returns.</summary>
    public static LabPicture Screen(LabVm vm, string name)
    {
        var last = vm.Screendump(name);
        for (var i = 0; i < 50; i++)
        {
            Thread.Sleep(200);
            var now = vm.Screendump(name);
            if (!now.IsBlank() && (now.Width, now.Height) == (last.Width, last.Height) && now.Difference(last) is null)
                return now;
            last = now;
        }
        return last;
    }

    /// <summary>Whether the console draws, or the picture is what somebody left in the card's memory. Afterwards it shows the prompt again.</summary>
    public static bool ShowsWhatIsWritten(LabVm vm, string name)
    {
        var before = Screen(vm, name);
        vm.Run("printf '\\n\\nthis is written now' > /dev/tty1").Ok();
        var seen = !Screen(vm, name).ShowsTheSameAs(before);
        vm.Run("systemctl restart getty@tty1.service").Ok();
        for (var i = 0; i < 50 && !vm.Screendump($"{name}-prompt").ShowsTheSameAs(before); i++)
            Thread.Sleep(200);
        return seen;
    }

    public void Dispose()
    {
        if (_host.IsValueCreated)
            _host.Value.Dispose();
    }
}

[CollectionDefinition(HostAtWork.Collection)]
public sealed class HostAtWorkUsers : ICollectionFixture<HostAtWork>;
