using System.Globalization;
using System.Runtime.CompilerServices;

namespace GpuHandoff.Lab.Tests;

/// <summary>
/// A Proxmox node with two equal GPUs, and the tool installed as a user has it: hookscript, timer, policy. What Proxmox does is
/// done by a stand-in (lab/proxmox), and QEMU is real. Booted once for all cases.
/// </summary>
public sealed class LabNode : IDisposable
{
    public const string Collection = "a Proxmox node";

    /// <summary>How long a GPU may stay away from home when nobody tells the tool that its VM is gone.</summary>
    public static readonly TimeSpan WatchLimit = TimeSpan.FromSeconds(30);

    const string Configs = "/etc/pve/qemu-server";

    const string MoveIn = """
        set -e
        qm lab-setup
        sed -i 's#@PREFIX@#/usr#' /etc/systemd/system/gpu-handoff-*
        systemctl daemon-reload
        systemctl start qmeventd
        systemctl start gpu-handoff-recover.timer
        """;

    /// <summary>No VM, no config, no policy, and nothing of the tool's at work, whatever a case left behind.</summary>
    const string MoveOut = """
        rm -f /etc/gpu-handoff.yaml /run/qemu-server/force-legacy-cleanup
        pkill -CONT -f '[q]m qmeventd'; systemctl start qmeventd gpu-handoff-recover.timer
        for p in $(pgrep qemu-system-x86); do kill -CONT $p; kill -KILL $p; done
        for id in 107 115 120; do [ ! -e /sys/fs/cgroup/lxc/$id ] || pct stop $id; done
        pkill -x flock
        for unit in slow ollama; do [ ! -e /sys/fs/cgroup/system.slice/$unit.service ] || { echo 0 > /run/slow; systemctl stop $unit; }; done
        fuser -k -KILL /dev/nvidia0 2> /dev/null
        for i in $(seq 100); do pgrep -f '[q]m cleanup' > /dev/null || break; sleep 0.1; done
        rm -f /etc/pve/qemu-server/*.conf /etc/pve/mapping/pci.cfg
        for i in $(seq 300); do pgrep -a -x gpu-handoff | grep --quiet -v -e --watch || break; sleep 0.1; done
        rm -f /run/qemu-server/*.* /run/lab-pve/*
        true
        """;

    /// <summary>What must be so when a VM is gone, in words of what is not. A script that ends early has not said its last one.</summary>
    const string LeftBehind = """
        shopt -s nullglob
        for lease in /var/lib/gpu-handoff/lease-*; do echo "a lease: $(cat $lease)"; done
        for file in /var/lib/gpu-handoff/journal-*; do
            mapfile -t lines < $file
            [[ ${lines[-1]} = *closes* ]] || echo "an open journal: $file"
        done
        [ ! -e /run/lab-pve/new_id ] || echo "Proxmox had to bind: $(cat /run/lab-pve/new_id)"
        # No file shows what is in new_id; remove_id knows: ENODEV where the ID is not there (pci-driver.c:remove_id_store).
        for f in $functions; do
            id="$(cat /sys/bus/pci/devices/$f/vendor) $(cat /sys/bus/pci/devices/$f/device)"
            if echo "$id" > /sys/bus/pci/drivers/vfio-pci/remove_id; then echo "vfio-pci had $id in new_id"; fi
        done 2> /dev/null
        [ ! -s /run/qemu-server/pci-id-reservations ] || echo "a reservation: $(cat /run/qemu-server/pci-id-reservations)"
        # Each watch ends with its lease, a few seconds later: what is asked for is that the last case's have.
        watches=$(systemctl list-units --plain --no-legend 'gpu-handoff-watch-*' | cut -d' ' -f1)
        for watch in $(cat /run/watches-before); do
            for i in $(seq 150); do [ ! -e /sys/fs/cgroup/system.slice/$watch ] && continue 2; sleep 0.1; done
            echo "a watch over nobody: $watch"
        done 2> /dev/null
        echo "$watches" > /run/watches-before
        for file in /run/qemu-server/*.cleanup /run/qemu-server/*.reboot /run/qemu-server/*.pid; do echo "a VM: $file"; done
        echo checked
        """;

    readonly Lazy<Host> _host = new(() =>
    {
        var host = new Host(
            new LabMachine
            {
                Name = "proxmox",
                Gpus = [LabGpu.Standard, LabGpu.Standard],
                Files =
                [
                    .. LabFile.FromFolder(Path.Combine(LabPlaces.Repository, "lab", "proxmox"), "/"),
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

    public PluggedGpu First => Vm.Gpus[0];

    public PluggedGpu Second => Vm.Gpus[1];

    /// <summary>Runs a case with NVIDIA's own modules. Afterwards every GPU is at home, and nothing of any VM is left.</summary>
    public void Case(Action act, [CallerMemberName] string name = "") => With(HostDriver.Nvidias, act, name);

    /// <summary>The same with the stand-in for NVIDIA's driver: a card can be in use, and a call can take its time.</summary>
    public void CaseOfUsers(Action act, [CallerMemberName] string name = "") => With(HostDriver.StandIn, act, name);

    void With(HostDriver driver, Action act, string name)
    {
        Host.Use(driver);
        Host.Case(
            () =>
            {
                try
                {
                    act();
                    Vm.Run($"functions='{string.Join(' ', Vm.Gpus.SelectMany(g => g.Functions).Select(f => f.Address))}'\n{LeftBehind}").Ok().Text.ShouldBe("checked");
                }
                finally
                {
                    File.AppendAllText(Path.Combine(Vm.Evidence, "hooks.txt"), $"{name}\n{Vm.Run("sed 's/^/    /' /run/lab-pve/hooks").Output}");
                    Vm.Run(MoveOut).Ok();
                }
            },
            name);
    }

    /// <summary>Writes a VM's config: one that can be shut down, has the tool as its hookscript, and what the lines say.</summary>
    public void Define(int id, params IEnumerable<string> lines) => Vm.Run($"""
        cat > {Configs}/{id}.conf << END
        cores: 2
        hookscript: local:snippets/gpu-handoff
        ide0: local:images/guest.raw
        machine: q35
        memory: 32
        {string.Join('\n', lines)}
        END
        """).Ok();

    /// <summary>The whole slot of a card, as Proxmox's web interface writes it for "All Functions".</summary>
    public static string Passes(PluggedGpu gpu, int index = 0, string more = "") => $"hostpci{index}: {gpu.Address.Slot}{more}";

    /// <summary>A mapping of the cluster with each of these cards as an alternative on this node, and one of another node's.</summary>
    public void Map(string id, params IEnumerable<PluggedGpu> gpus) => Vm.Run($$"""
        word() { read -r w < /sys/bus/pci/devices/$1/$2; echo ${w#0x}; }
        {
            printf '{{id}}\n\tdescription all of them\n'
            for f in {{string.Join(' ', gpus.Select(g => g.Address))}}; do
                group=$(basename "$(readlink /sys/bus/pci/devices/$f/iommu_group)")
                printf '\tmap id=%s:%s,iommugroup=%s,node=%s,path=%s,subsystem-id=%s:%s\n' \
                    $(word $f vendor) $(word $f device) $group lab ${f%.*} $(word $f subsystem_vendor) $(word $f subsystem_device)
                printf '\tmap id=10de:2684,iommugroup=1,node=other,path=0000:81:00\n'
            done
        } > /etc/pve/mapping/pci.cfg
        """).Ok();

    /// <summary>A task of Proxmox's that ends well.</summary>
    public LabResult Qm(string arguments)
    {
        var result = Vm.Run($"qm {arguments}");
        result.ExitCode.ShouldBe(0, result.ToString());
        return result;
    }

    /// <summary>A task of Proxmox's that fails; the answer is its log.</summary>
    public string QmFails(string arguments)
    {
        var result = Vm.Run($"qm {arguments}");
        result.ExitCode.ShouldNotBe(0, result.ToString());
        return result.Output + result.Errors;
    }

    public string Pid(int id) => Vm.Run($"cat /run/qemu-server/{id}.pid").Ok().Text;

    /// <summary>The boot sector is in the guest's hands: it listens to the power button and to the keyboard.</summary>
    public void WaitForGuest(int id) => Vm.Run($$$"""
        for i in $(seq 150); do
            case $(qm monitor {{{id}}} '{"execute":"human-monitor-command","arguments":{"command-line":"info registers"}}') in
                *EIP=00007c*) exit 0;;
            esac
            sleep 0.2
        done
        exit 1
        """).Ok();

    /// <summary>The guest powers itself off, as one does whose user chose that in its menu.</summary>
    public void PowerOffInside(int id) =>
        Qm($$$"""monitor {{{id}}} '{"execute":"send-key","arguments":{"keys":[{"type":"qcode","data":"a"}]}}'""");

    public string Drivers(PluggedGpu gpu) => Vm.Run($$"""
        for f in {{gpu.Functions[0].Address}} {{gpu.Functions[1].Address}}; do
            driver=; ! cd -P /sys/bus/pci/devices/$f/driver 2> /dev/null || driver=${PWD##*/}
            printf '%s ' $driver
        done
        """).Text.TrimEnd();

    public const string Away = "vfio-pci vfio-pci";

    public const string Home = "nvidia snd_hda_intel";

    /// <summary>What <c>leases</c> says of each card that is lent.</summary>
    public string Leases() => Host.Tool(0, "leases").Output;

    /// <summary>The hooks that ran for a VM since the case began: <c>pre-start post-start</c>; one that failed with a <c>!</c>.</summary>
    public string Hooks(int id) => Vm.Run($$"""
        awk '$1 == {{id}} { print $2 ($3 == "good" ? "" : "!") }' /run/lab-pve/hooks
        """).Text.ReplaceLineEndings(" ");

    /// <summary>How long the last hook of a phase took, from its start to the end of its output.</summary>
    public TimeSpan HookTook(int id, string phase) => TimeSpan.FromSeconds(double.Parse(
        Vm.Run($$"""awk '$1 == {{id}} && $2 == "{{phase}}" { took = $4 } END { print took }' /run/lab-pve/hooks""").Ok().Text,
        CultureInfo.InvariantCulture));

    /// <summary>Waits until the card is at home and nobody's any more; the answer is how long that took.</summary>
    public TimeSpan ComesHome(PluggedGpu gpu, TimeSpan? limit = null)
    {
        var functions = gpu.Functions;
        var result = Vm.Run($"""
            end=$((SECONDS + {(int)(limit ?? WatchLimit).TotalSeconds}))
            while [ $SECONDS -le $end ]; do
                [ -e /sys/bus/pci/drivers/nvidia/{functions[0].Address} -a -e /sys/bus/pci/drivers/snd_hda_intel/{functions[1].Address} \
                    -a ! -e /var/lib/gpu-handoff/lease-{gpu.Address}.json ] && exit 0
                sleep 0.1
            done
            gpu-handoff leases; journalctl --no-pager --boot -u 'gpu-handoff*' | tail -50
            exit 1
            """);
        result.ExitCode.ShouldBe(0, $"{gpu} did not come home: {Drivers(gpu)}\n{result}");
        return result.Took;
    }

    /// <summary>A unit of the host's that has the first card open, and takes so many seconds to stop.</summary>
    public void Work(string unit, int stopsIn = 0)
    {
        Vm.Run($"echo {stopsIn} > /run/slow; systemctl start {unit}").Ok();
        IsAtWork(unit);
    }

    public void IsAtWork(string unit) => Vm.Run($"""
        for i in $(seq 100); do
            read -r _ 2> /dev/null < /sys/fs/cgroup/system.slice/{unit}.service/cgroup.procs && fuser --silent /dev/nvidia0 && exit 0
            sleep 0.1
        done
        exit 1
        """).Ok();

    /// <summary>Waits until a task's log says this, and does something in that moment.</summary>
    public void AwaitLog(string log, string line, string then = "true") => Vm.Run($"""
        for i in $(seq 1000); do
            case $(< /var/log/pve/tasks/{log}) in *'{line}'*) {then}; exit;; esac
            sleep 0.02
        done 2> /dev/null
        cat /var/log/pve/tasks/{log}
        exit 1
        """).Ok();

    /// <summary>What it says; the machine is untouched.</summary>
    public string LooksOnly(int exit, string command)
    {
        var before = Host.Picture();
        var answer = Host.Tool(exit, command);
        Host.Picture().ShouldBe(before);
        return answer.Output + answer.Errors;
    }

    public void Knob(string knob, int value) => Vm.Run($"echo {value} > /sys/module/nvidia/parameters/{knob}").Ok();

    public bool OpensGroup(string pid) => Vm.Run($"ls -l /proc/{pid}/fd").Ok().Text.Contains("/dev/vfio/", StringComparison.Ordinal);

    /// <summary>The VM is the same process, runs, and has its card.</summary>
    public void Undisturbed(int id, string pid, PluggedGpu gpu)
    {
        Pid(id).ShouldBe(pid);
        // Which its own monitor tells better than Proxmox, for which a process is enough.
        Vm.Run($"qm monitor {id} query-status").Ok().Text.ShouldContain("\"running\"");
        OpensGroup(pid).ShouldBeTrue("QEMU has the group open");
        Drivers(gpu).ShouldBe(Away);
    }

    /// <summary>Until Proxmox is done with the VM, too.</summary>
    public void Settled(int id) => Vm.Run($"""
        for i in $(seq 300); do
            pgrep -f '[q]m cleanup {id}' > /dev/null || [ -e /run/lab-pve/{id}.task ] || exit 0
            sleep 0.1
        done
        exit 1
        """).Ok();

    public void Policy(string text) => Vm.Run($"cat > /etc/gpu-handoff.yaml << 'END'\n{text}\nEND").Ok();

    public void Dispose()
    {
        if (_host.IsValueCreated)
            _host.Value.Dispose();
    }
}

[CollectionDefinition(LabNode.Collection)]
public sealed class LabNodeUsers : ICollectionFixture<LabNode>;
