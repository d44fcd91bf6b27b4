using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Proxmox;

namespace GpuHandoff.Simulation;

/// <summary>What goes wrong with a start after pre-start has said yes.</summary>
public enum StartTrouble
{
    None,

    /// <summary>Before anything is reserved: a volume is missing, the command line cannot be made.</summary>
    BeforePci,

    /// <summary>QEMU ends at once.</summary>
    QemuFails,

    /// <summary>The worker is killed while QEMU comes up: no clean-up of its own, and the reservation runs out by time.</summary>
    WorkerKilled,

    /// <summary>QEMU runs, and a later call fails: no post-start.</summary>
    AfterQemu,
}

/// <summary>
/// Proxmox's life cycle of VMs with a hookscript in it: what <c>qm start</c>, <c>stop</c>, <c>shutdown</c> and <c>reboot</c>,
/// a guest's power-off and qmeventd do, in Proxmox's order and under its locks. The hook is called as Proxmox calls it; what
/// qmeventd brings about later waits until <see cref="Cleanup"/> is called, or is lost if it never is.
/// </summary>
/// <remarks>
/// qemu-server: PVE/QemuServer.pm (vm_start_nolock, _do_vm_stop, vm_stop_cleanup, vm_reboot), PVE/CLI/qm.pm (cleanup),
/// PVE/QemuServer/PCI.pm (reserve_pci_usage, prepare_pci_device).
/// </remarks>
public sealed class Qm(SimulatedKernel kernel, Qm.Hook hook)
{
    /// <summary>The hookscript: its exit code.</summary>
    public delegate int Hook(string vm, string phase);

    const int StartTimeout = 120;

    // Below all others, so that those have the numbers that they would have without them.
    const int FirstPid = 2000;

    readonly ProxmoxHost host = kernel.Proxmox;
    readonly Stack<SimulatedProcess> atWork = new();
    readonly Dictionary<string, (bool Clean, bool Guest)> ends = new(StringComparer.Ordinal);

    /// <summary>qemu-server before 9.1.13: post-stop comes from qmeventd alone, after QEMU's end.</summary>
    public bool IsLegacy { get; init; }

    /// <summary>VMs whose QEMU has ended and for which qmeventd has not run <c>qm cleanup</c> yet, oldest first.</summary>
    public IList<string> Awaited { get; } = [];

    /// <summary>Every call of the hook with its exit code: <c>101 pre-start 0</c>.</summary>
    public IList<string> Log { get; } = [];

    /// <summary>A reason of Proxmox's why it did not go; null: it went.</summary>
    public string? Start(string vm, StartTrouble trouble = StartTrouble.None)
    {
        using var task = Task("qmstart", vm, "start");
        if (host.IsLocked(vm))
            return $"can't lock file '/var/lock/qemu-server/lock-{vm}.conf' - got timeout";
        using var locked = host.Lock(vm);
        return StartLocked(vm, trouble);
    }

    string? StartLocked(string vm, StartTrouble trouble)
    {
        if (Config(vm) is not { } config)
            return $"Configuration file 'nodes/{kernel.HostName}/qemu-server/{vm}.conf' does not exist";
        if (config.IsTemplate)
            return "you can't start a vm if it's a template";
        if (config.Lock is { } reason and not "backup")
            return $"VM is locked ({reason})";
        if (IsRunning(vm))
            return $"VM {vm} already running";
        kernel.Files.Remove(ProxmoxHost.RebootMarker(vm));
        ApplyPending(vm);
        config = Config(vm)!;

        if (Call(config, vm, "pre-start") is not 0 and var exit)
            return $"hookscript error for {vm} on pre-start: command '… {vm} pre-start' failed: exit code {exit}";
        if (trouble == StartTrouble.BeforePci)
            return "volume does not exist";

        var chosen = new List<PciDevice>();
        try
        {
            foreach (var device in config.Devices.Where(device => !device.IsMediated))
                chosen.AddRange(Prepare(vm, device, chosen));
        }
        catch (KernelRefused refused)
        {
            host.Release(vm);
            return refused.Message;
        }
        switch (trouble)
        {
            case StartTrouble.QemuFails:
                host.Release(vm);
                return "start failed: QEMU exited with code 1";
            case StartTrouble.WorkerKilled:
                return "received interrupt";
        }
        try
        {
            var qemu = host.Start(vm, [.. chosen.Select(device => device.Address)]);
            foreach (var device in chosen)
                host.Reserve(device.Address.ToString(), vm, $"pid:{qemu.Pid}");
        }
        catch (KernelRefused refused)
        {
            host.Release(vm);
            return $"start failed: {refused.Message}";
        }
        if (!IsLegacy)
            kernel.Files.Write(ProxmoxHost.CleanupFlag(vm), "");
        if (trouble == StartTrouble.AfterQemu)
            return "VM 101 qmp command 'balloon' failed";
        Call(config, vm, "post-start");
        return null;
    }

    /// <summary>The Stop button, and with <paramref name="dies"/> false a QEMU that hears neither quit nor SIGKILL (state D).</summary>
    public string? Stop(string vm, bool dies = true)
    {
        using var task = Task("qmstop", vm, "stop");
        return Down(vm, timesOut: false, dies, clean: true, guest: false);
    }

    /// <summary>A shutdown that the guest obeys, or that times out without force: pre-stop has run then, and the VM lives on.</summary>
    public string? Shutdown(string vm, bool timesOut = false)
    {
        using var task = Task("qmshutdown", vm, "shutdown");
        return Down(vm, timesOut, dies: true, clean: true, guest: true);
    }

    /// <summary>How vzdump in mode stop ends a VM that runs, and that it has locked before (VZDump/QemuServer.pm:stop_vm).</summary>
    public string? ShutdownForBackup(string vm)
    {
        using var vzdump = At($"task UPID:{kernel.HostName}:000007D0:00001092:6920D0C0:vzdump:{vm}:root@pam:");
        using var task = Task("qmshutdown", vm, "shutdown", "--skiplock", "--keepActive", "--timeout", "600");
        return Down(vm, timesOut: false, dies: true, clean: true, guest: true);
    }

    string? Down(string vm, bool timesOut, bool dies, bool clean, bool guest)
    {
        if (host.IsLocked(vm))
            return $"can't lock file '/var/lock/qemu-server/lock-{vm}.conf' - got timeout";
        using var locked = host.Lock(vm);
        return DownLocked(vm, timesOut, dies, clean, guest);
    }

    string? DownLocked(string vm, bool timesOut, bool dies, bool clean, bool guest)
    {
        if (!IsRunning(vm) || Config(vm) is not { } config)
            return null;
        Call(config, vm, "pre-stop");
        if (timesOut)
            return "VM quit/powerdown failed - got timeout";
        if (dies)
            End(vm, clean, guest);
        StopCleanup(vm, applies: true, calls: true);
        return null;
    }

    /// <summary>The marker, a shutdown; qmeventd's clean-up then starts the VM again.</summary>
    public string? Reboot(string vm, bool timesOut = false)
    {
        using var task = Task("qmreboot", vm, "reboot");
        if (host.IsLocked(vm))
            return $"can't lock file '/var/lock/qemu-server/lock-{vm}.conf' - got timeout";
        using var locked = host.Lock(vm);
        if (!IsRunning(vm))
            return null;
        host.MarkReboot(vm);
        var failed = DownLocked(vm, timesOut, dies: true, clean: true, guest: true);
        if (failed is not null)
            kernel.Files.Remove(ProxmoxHost.RebootMarker(vm));
        return failed;
    }

    /// <summary>The guest powers itself off: no hook, until qmeventd has noticed.</summary>
    /// <param name="teardown">How long vfio is at the devices after QEMU has left /proc.</param>
    public void PowerOff(string vm, TimeSpan teardown = default) => Vanish(vm, teardown, clean: true, guest: true);

    /// <summary>QEMU crashes, or somebody kills it: no hook either, and no word to qmeventd.</summary>
    public void Crash(string vm) => Vanish(vm, TimeSpan.Zero, clean: false, guest: false);

    void Vanish(string vm, TimeSpan teardown, bool clean, bool guest)
    {
        if (host.Qemu(vm) is null)
            return;
        if (teardown > TimeSpan.Zero)
            host.Kill(vm, teardown);
        else
            host.Kill(vm);
        Await(vm, clean, guest);
    }

    /// <summary>qmeventd's <c>qm cleanup</c> comes for the VM that has waited longest, or for this one: when, the test says.</summary>
    /// <returns>A reason why it gave up; null: it went.</returns>
    public string? Cleanup(string? which = null)
    {
        if ((which ?? Awaited.FirstOrDefault()) is not { } vm || !Awaited.Remove(vm))
            return null;
        var (clean, guest) = ends.GetValueOrDefault(vm);
        using var qmeventd = At("/usr/sbin/qmeventd", "/var/run/qmeventd.sock");
        using var cleanup = At("/usr/bin/perl", "/usr/sbin/qm", "cleanup", vm, clean ? "1" : "0", guest ? "1" : "0");
        if (host.IsLocked(vm))
            return $"can't lock file '/var/lock/qemu-server/lock-{vm}.conf' - got timeout";
        using (host.Lock(vm))
        {
            if (Config(vm) is not { } config)
                return null;
            if (IsRunning(vm))
            {
                return clean && config.Lock == "backup" && !IsLegacy ? "skipping cleanup - 'backup' lock is present and vm is running again"
                    : "aborting cleanup, VM is still running after 30 seconds";
            }
            // Post-stop is left to the old way's own call, or comes with the flag that the start has set.
            StopCleanup(vm, applies: false, calls: true);
            if (IsLegacy)
                Call(config, vm, "post-stop");
            if (!kernel.Files.Has(ProxmoxHost.RebootMarker(vm)))
                return null;
            kernel.Files.Remove(ProxmoxHost.RebootMarker(vm));
        }
        // PVE::API2::Qemu->vm_start within this very process, and in a worker of it.
        return Start(vm);
    }

    /// <summary>qmeventd is not there, or loses the race: nobody ever cleans up after this end.</summary>
    public void LoseCleanup(string vm) => Awaited.Remove(vm);

    /// <summary>The running VM's config changes: into effect with its next stop.</summary>
    public void ChangeLater(string vm, string pending)
    {
        var config = host.Config(vm) ?? "";
        host.Write(vm, $"{Main(config)}\n[PENDING]\n{pending}\n");
    }

    // What [PENDING] holds lies over the main section, and is gone as such.
    void ApplyPending(string vm)
    {
        var config = host.Config(vm) ?? "";
        var at = config.IndexOf("[PENDING]", StringComparison.Ordinal);
        if (at < 0)
            return;
        var pending = config[(at + "[PENDING]".Length)..].Split('\n', StringSplitOptions.RemoveEmptyEntries);
        var keys = pending.Select(line => line.Split(':')[0]).ToHashSet(StringComparer.Ordinal);
        host.Write(vm, string.Join('\n', Main(config).Split('\n').Where(line => !keys.Contains(line.Split(':')[0])).Concat(pending)) + "\n");
    }

    static string Main(string config) =>
        config.IndexOf("[PENDING]", StringComparison.Ordinal) is >= 0 and var at ? config[..at].TrimEnd('\n') : config.TrimEnd('\n');

    VmConfig? Config(string vm) => host.Config(vm) is { } text ? VmConfig.Parse(text) : null;

    bool IsRunning(string vm) => kernel.Files.Read(ProxmoxHost.PidFile(vm)) is { } text
        && int.TryParse(text.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out var pid)
        && kernel.RunningProcesses.Any(process => process.Pid == pid);

    int Call(VmConfig config, string vm, string phase)
    {
        if (config.Hookscript is null)
            return 0;
        using var process = At($"/var/lib/vz/snippets/{Snippet.Name}", vm, phase);
        var ours = kernel.Ourselves;
        kernel.Ourselves = atWork.Peek();
        int exit;
        try
        {
            exit = hook(vm, phase);
        }
        finally
        {
            kernel.Ourselves = ours;
        }
        Log.Add($"{vm} {phase} {exit}");
        return exit;
    }

    void End(string vm, bool clean, bool guest)
    {
        host.Kill(vm);
        Await(vm, clean, guest);
    }

    // qmeventd.c:handle_qmp_event: whether QEMU has said SHUTDOWN, and by whose wish: its guest's, or quit's.
    void Await(string vm, bool clean, bool guest)
    {
        Awaited.Add(vm);
        ends[vm] = (clean, guest);
    }

    /// <summary>A command of qm's, and its worker under the name that it gives itself (pve-common, RESTEnvironment.pm:fork_worker).</summary>
    AtWork Task(string kind, string vm, string verb, params IReadOnlyList<string> more)
    {
        _ = At(["/usr/bin/perl", "/usr/sbin/qm", verb, vm, .. more]);
        return At($"task UPID:{kernel.HostName}:00001092:00001093:6920D0C1:{kind}:{vm}:root@pam:") with { Processes = 2 };
    }

    /// <summary>A process of Proxmox's as long as it is at work: the child of whoever is at work already.</summary>
    AtWork At(params IReadOnlyList<string> commandLine)
    {
        var process = kernel.StartProcess(commandLine[0].Split('/')[^1], "/system.slice/pvedaemon.service", FirstPid + atWork.Count);
        process.CommandLine = commandLine;
        process.Parent = atWork.TryPeek(out var parent) ? parent.Pid : 1;
        atWork.Push(process);
        return new(kernel, atWork, 1);
    }

    readonly record struct AtWork(SimulatedKernel Kernel, Stack<SimulatedProcess> All, int Processes) : IDisposable
    {
        public void Dispose()
        {
            for (var i = 0; i < Processes; i++)
                Kernel.EndProcess(All.Pop());
        }
    }

    void StopCleanup(string vm, bool applies, bool calls)
    {
        if (!IsLegacy && !kernel.Files.Has(ProxmoxHost.CleanupFlag(vm)))
            return;
        kernel.Files.Remove(ProxmoxHost.PidFile(vm));
        host.Release(vm);
        if (applies)
            ApplyPending(vm);
        if (!IsLegacy && calls)
            Call(Config(vm)!, vm, "post-stop");
        kernel.Files.Remove(ProxmoxHost.CleanupFlag(vm));
    }

    // ---- PCI.pm ----

    List<PciDevice> Prepare(string vm, HostPci wanted, List<PciDevice> taken)
    {
        if (wanted.WhyNoStart() is { } wrong)
            throw Refused(vm, wrong);
        var choices = wanted.Mapping is { } mapping
            ? [.. (PciMappings.Find(kernel.Files.Read(ProxmoxHost.Mappings) ?? "", mapping) ?? throw Refused(vm, $"PCI device mapping not found for '{mapping}'"))
                .On(kernel.HostName).Select(alternative => alternative.Path)]
            : new List<IReadOnlyList<HostId>> { wanted.Host };
        if (choices.Count == 0)
            throw Refused(vm, $"no PCI device found for mapping '{wanted.Mapping}' on node {kernel.HostName}");
        foreach (var choice in choices)
        {
            var devices = choice.SelectMany(id => kernel.Bus.Devices.Where(device => id.Has(device.Address)) is var found && found.Any()
                ? found : throw Refused(vm, $"no PCI device found for '{id}'")).ToList();
            var blocked = devices.Exists(taken.Contains) ? "PCI device assigned more than once" : Blocked(vm, devices);
            if (blocked is not null && choices.Count > 1)
                continue;
            if (blocked is not null)
                throw Refused(vm, blocked);
            foreach (var device in devices)
                host.Reserve(device.Address.ToString(), vm, $"time:{(kernel.BootedAt + kernel.Uptime).ToUnixTimeSeconds() + StartTimeout + 5}");
            if (wanted.Driver == HostDriver.Vfio)
            {
                foreach (var device in devices)
                    Bind(vm, device);
            }
            return devices;
        }
        throw Refused(vm, $"no free device in mapping '{wanted.Mapping}'");
    }

    string? Blocked(string vm, List<PciDevice> devices)
    {
        var now = (kernel.BootedAt + kernel.Uptime).ToUnixTimeSeconds();
        return Reservations.Parse(kernel.Files.Read(ProxmoxHost.Reservations) ?? "")
            .Where(reserved => reserved.Vm.ToString(CultureInfo.InvariantCulture) != vm && devices.Exists(device => reserved.Id.Has(device.Address)))
            .Where(reserved => reserved.Until >= now || kernel.RunningProcesses.Any(process => process.Pid == reserved.Pid))
            .Select(reserved => $"PCI device '{reserved.Id}' already in use by VMID '{reserved.Vm}'").FirstOrDefault();
    }

    /// <summary>SysFSTools.pm:pci_dev_group_bind_to_vfio: the whole group but its bridges, by new_id, whoever uses it.</summary>
    void Bind(string vm, PciDevice wanted)
    {
        var budget = TimeSpan.FromSeconds(60);
        kernel.Elsewhere(door =>
        {
            door.LoadModule("vfio-pci", [], budget);
            foreach (var device in kernel.Bus.Devices.Where(device => device.Hardware.IommuGroup == wanted.Hardware.IommuGroup
                && !new PciClass(device.Hardware.Class).IsBridge() && device.Driver != "vfio-pci").ToList())
            {
                try
                {
                    door.Write(Sys.Driver("vfio-pci") / "new_id", $"{device.Hardware.Vendor:x4} {device.Hardware.Device:x4}", budget);
                }
                catch (KernelRefused refused) when (refused.Errno == Errno.Exists)
                {
                    // It has the ID already.
                }
                if (device.Driver is not (null or "vfio-pci"))
                    door.Write(Sys.Function(device.Address) / "driver/unbind", device.Address.ToString(), budget);
                if (device.Driver is null)
                    door.Write(Sys.Driver("vfio-pci") / "bind", device.Address.ToString(), budget);
                if (device.Driver != "vfio-pci")
                    throw Refused(vm, $"Cannot bind {device.Address} to vfio");
            }
        });
    }

    static KernelRefused Refused(string vm, string why) => new($"start VM {vm}", 0, why);
}
