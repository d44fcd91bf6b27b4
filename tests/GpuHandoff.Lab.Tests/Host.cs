namespace GpuHandoff.Lab.Tests;

/// <summary>A lab machine as a host that uses gpu-handoff: the published binary, the driver and its nodes.</summary>
public sealed class Host : IDisposable
{
    /// <summary>Everything that a hand-over could change and should not have, as text.</summary>
    const string Describe = """
        # By the shell's builtins: a program costs 50 ms in an emulated processor, and every case looks several times.
        for f in /sys/bus/pci/devices/*; do
            read class < $f/class; case $class in 0x06*) continue;; esac
            read only < $f/driver_override; driver=; ! cd -P $f/driver 2> /dev/null || driver=${PWD##*/}
            read power < $f/power/control; read d3cold < $f/d3cold_allowed
            echo "${f##*/} driver=$driver override=$only power=$power d3cold=$d3cold"
        done
        grep -E '^(nvidia|nouveau|snd_hda_intel|xhci_pci)' /proc/modules | cut -d' ' -f1,3,4 | sort
        stat -c '%n %F %a %u:%g %T' /dev/nvidia* 2>/dev/null
        grep . /sys/class/vtconsole/*/name /sys/class/vtconsole/*/bind
        ls -d /dev/dri/* /dev/snd/controlC* 2>/dev/null
        """;

    /// <summary>As nvidia-modprobe makes them: the kernel does not.</summary>
    const string MakeNodes = """
        umask 0
        rm -f /dev/nvidia*
        n=0; for gpu in /proc/driver/nvidia/gpus/*; do mknod -m 666 /dev/nvidia$n c 195 $n; n=$((n + 1)); done
        mknod -m 666 /dev/nvidiactl c 195 255
        [ ! -e /sys/module/nvidia_modeset ] || mknod -m 666 /dev/nvidia-modeset c 195 254
        [ -e /sys/module/nvidia_uvm ] || exit 0
        uvm=$(awk '$2 == "nvidia-uvm" { print $1 }' /proc/devices)
        mknod -m 666 /dev/nvidia-uvm c $uvm 0
        mknod -m 666 /dev/nvidia-uvm-tools c $uvm 1
        """;

    readonly HostDriver _driver;
    string _home = "";

    public Host(string name, params IReadOnlyList<LabGpu> gpus)
        : this(name, HostDriver.Nvidias, gpus)
    {
    }

    public Host(string name, HostDriver driver, params IReadOnlyList<LabGpu> gpus)
    {
        _driver = driver;
        var binary = Path.Combine(LabPlaces.Repository, "artifacts", "publish", "gpu-handoff");
        if (!File.Exists(binary))
            throw new FileNotFoundException($"{binary} is not there: make publish", binary);
        Vm = LabVm.Boot(new() { Name = name, Gpus = gpus, Files = [LabFile.From(binary, "/usr/sbin/gpu-handoff")] });
        Vm.Run($"{driver.Choose}; sync").Ok();
        Furnish();
    }

    public LabVm Vm { get; }

    /// <summary>From a machine that has just booted to one that is at home.</summary>
    public void Furnish()
    {
        // The firmware's text console on the boot card ends with the first bind to vfio-pci and no call brings it back
        // (video/aperture.c:aperture_remove_conflicting_pci_devices). Here it is over before a case looks.
        Vm.Run("modprobe vfio-pci").Ok();
        foreach (var gpu in Vm.Gpus)
        {
            Vm.Run(ShellFloor.ToVfio(gpu)).Ok();
            Vm.Run(ShellFloor.ToHost(gpu)).Ok();
        }
        Vm.Run(_driver.Load).Ok();
        Vm.Run(MakeNodes).Ok();
        _home = Picture();
    }

    public string Picture() => Vm.Run(Describe).Text;

    /// <summary>Runs a case from a machine at home, and wants it at home again afterwards.</summary>
    public void Case(Action act, [System.Runtime.CompilerServices.CallerMemberName] string name = "") => Vm.Case(
        () =>
        {
            try
            {
                act();
                Picture().ShouldBe(_home);
            }
            finally
            {
                // Whatever went wrong, the next case shall not pay for it.
                if (Picture() != _home)
                    Vm.Run("gpu-handoff to_nvidia --gpu all --claim; rm -rf /var/lib/gpu-handoff");
            }
        },
        name);

    /// <summary>The tool's answer, with its exit code as expected.</summary>
    public LabResult Tool(int exit, string arguments)
    {
        var result = Vm.Run($"gpu-handoff {arguments}");
        result.ExitCode.ShouldBe(exit, $"gpu-handoff {arguments}\n{result.Output}\n{result.Errors}");
        return result;
    }

    /// <summary>A refusal: exit code 1, a reason, and not a trace on the machine.</summary>
    public string Refused(string arguments)
    {
        var before = Picture();
        var refused = Tool(1, arguments);
        Picture().ShouldBe(before);
        refused.Errors.ShouldContain("nothing was changed");
        refused.Errors.ShouldContain("hint: ");
        return refused.Errors;
    }

    public string Driver(PluggedGpu gpu, int function) =>
        Vm.Run($"basename \"$(readlink /sys/bus/pci/devices/{gpu.Functions[function].Address}/driver)\"").Text;

    public string Override(PluggedGpu gpu, int function) =>
        Vm.Run($"cat /sys/bus/pci/devices/{gpu.Functions[function].Address}/driver_override").Ok().Text;

    public string Modules() => Vm.Run("cut -d' ' -f1 /proc/modules | grep '^nvidia' | sort").Text.ReplaceLineEndings(" ");

    public void Dispose() => Vm.Dispose();
}
