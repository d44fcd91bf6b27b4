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
        # By name: a console that comes back may have another number.
        for c in /sys/class/vtconsole/*; do read name < $c/name; read bound < $c/bind; echo "console $name bound=$bound"; done | sort
        for f in /sys/class/graphics/fb[0-9]*; do [ ! -e $f ] || { read name < $f/name; echo "framebuffer $name"; }; done | sort
        ls -d /dev/dri/* /dev/snd/controlC* 2>/dev/null
        """;

    /// <summary>As nvidia-modprobe makes them: the kernel does not.</summary>
    const string MakeNodes = """
        umask 0
        rm -f /dev/nvidia*
        [ -e /proc/driver/nvidia/gpus ] || exit 0
        n=0; for gpu in /proc/driver/nvidia/gpus/*; do mknod -m 666 /dev/nvidia$n c 195 $n; n=$((n + 1)); done
        mknod -m 666 /dev/nvidiactl c 195 255
        [ ! -e /sys/module/nvidia_modeset ] || mknod -m 666 /dev/nvidia-modeset c 195 254
        [ -e /sys/module/nvidia_uvm ] || exit 0
        uvm=$(awk '$2 == "nvidia-uvm" { print $1 }' /proc/devices)
        mknod -m 666 /dev/nvidia-uvm c $uvm 0
        mknod -m 666 /dev/nvidia-uvm-tools c $uvm 1
        """;

    /// <summary>Who uses the cards, by unit, process and container: more than <see cref="Describe"/> can afford to ask each time.</summary>
    const string DescribeUsers = """
        systemctl list-units --all --plain --no-legend --type=service,target \
            'nvidia*' 'gpu-handoff-host*' 'getty@tty1*' ollama.service jellyfin.service folding.service 'mps*' \
            | tr -s ' ' | cut -d' ' -f1,3,4 | sort
        # Through the links: a container's node is another inode, with the card's numbers.
        find -L /proc/[0-9]*/fd -maxdepth 1 -type c -exec stat -L -c '%Hr:%Lr %n' {} + 2> /dev/null | grep '^195:' | while read -r node file; do
            process=${file%/fd/*}
            read -r name < $process/comm; read -r group < $process/cgroup
            echo "$name of ${group#0::} has $node"
        done | sort
        for id in 107 115 120; do [ ! -e /sys/fs/cgroup/lxc/$id ] || echo "container $id runs"; done
        # It takes a second to answer: only where a case has made a container.
        [ ! -e /run/podman-in-use ] || podman ps --all --format 'container {{.ID}} {{.Names}} {{.State}}' | sort
        """;

    HostDriver _driver;
    string _home = "";

    public Host(string name, params IReadOnlyList<LabGpu> gpus)
        : this(name, HostDriver.Nvidias, gpus)
    {
    }

    public Host(string name, HostDriver driver, params IReadOnlyList<LabGpu> gpus)
        : this(new LabMachine { Name = name, Gpus = gpus }, driver)
    {
    }

    public Host(LabMachine machine, HostDriver driver)
    {
        _driver = driver;
        var binary = Path.Combine(LabPlaces.Repository, "artifacts", "publish", "gpu-handoff");
        if (!File.Exists(binary))
            throw new FileNotFoundException($"{binary} is not there: make publish", binary);
        Vm = LabVm.Boot(machine with { Files = [LabFile.From(binary, "/usr/sbin/gpu-handoff"), .. machine.Files] });
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

    /// <summary>Another driver for the NVIDIA cards; the machine is at home with it.</summary>
    public void Use(HostDriver driver)
    {
        if (driver == _driver)
            return;
        Vm.Run($"for m in nvidia_uvm nvidia_drm nvidia_modeset nvidia; do [ ! -e /sys/module/$m ] || rmmod $m || exit; done; {driver.Choose}").Ok();
        _driver = driver;
        Vm.Run(_driver.Load).Ok();
        Vm.Run(MakeNodes).Ok();
        _home = Picture();
    }

    public string Picture() => Vm.Run(Describe).Text;

    /// <summary><see cref="Picture"/>, and with it everybody who uses the cards.</summary>
    public string Record() => $"{Picture()}\n{Vm.Run(DescribeUsers).Text}";

    /// <summary>Runs a case from a machine at home, and wants it at home again afterwards.</summary>
    public void Case(Action act, [System.Runtime.CompilerServices.CallerMemberName] string name = "") => Vm.Case(
        () =>
        {
            try
            {
                act();
                Picture().ShouldBe(_home);
            }
            catch
            {
                // Whatever went wrong, the next case shall not pay for it.
                if (Picture() != _home)
                    Vm.Run("gpu-handoff to_nvidia --gpu all --claim; rm -rf /var/lib/gpu-handoff /run/gpu-handoff");
                throw;
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
        Vm.Run($"! cd -P /sys/bus/pci/devices/{gpu.Functions[function].Address}/driver 2> /dev/null || echo ${{PWD##*/}}").Text;

    public string Override(PluggedGpu gpu, int function) =>
        Vm.Run($"cat /sys/bus/pci/devices/{gpu.Functions[function].Address}/driver_override").Ok().Text;

    public string Modules() => Vm.Run("cut -d' ' -f1 /proc/modules | grep '^nvidia' | sort").Text.ReplaceLineEndings(" ");

    public void Dispose() => Vm.Dispose();
}
