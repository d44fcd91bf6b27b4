using System.Globalization;
using System.Text;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Simulation;
using Xunit.Abstractions;
using static GpuHandoff.Core.Tests.Guests.VmHost;

namespace GpuHandoff.Core.Tests.Guests;

/// <summary>
/// VMs that start, stop, crash, reboot and are killed in any order on a host with two GPUs, with hooks that are killed and
/// clean-ups that are late or lost. LIFE_SEED=N plays one life again, LIFE_CASES sets how many.
/// </summary>
public class RandomLives(ITestOutputHelper output)
{
    static readonly string[] _vms = ["101", "102", "103", "104"];

    [Fact]
    public void Whatever_becomes_of_vms_no_running_one_loses_its_gpu_and_every_gpu_comes_home()
    {
        if (int.TryParse(Environment.GetEnvironmentVariable("LIFE_SEED"), out var seed))
            output.WriteLine(Live(seed));
        else
            Live(Count("LIFE_CASES", 60), first: 1);
    }

    [Fact]
    [Trait("Category", "Soak")]
    public void The_same_for_very_many_lives() => Live(Count("LIFE_CASES", 5000), Random.Shared.Next(1_000_000_000));

    void Live(int cases, int first)
    {
        var starts = 0;
        Parallel.For(first, first + cases, new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount },
            seed => Interlocked.Add(ref starts, Live(seed).Split('\n').Count(l => l.StartsWith("start", StringComparison.Ordinal) && l.EndsWith("went", StringComparison.Ordinal))));
        output.WriteLine($"lives {first} to {first + cases - 1}: {starts} starts");
        starts.ShouldBeGreaterThan(cases, "a life without starts shows nothing");
    }

    static int Count(string name, int otherwise) =>
        int.TryParse(Environment.GetEnvironmentVariable(name), NumberStyles.None, CultureInfo.InvariantCulture, out var count) ? count : otherwise;

    /// <summary>What happened, a line for each event.</summary>
    static string Live(int seed)
    {
        var random = new Random(seed);
        var host = new VmHost(Hosts.TwoIdenticalGpus(new(random.Next(2) == 0 ? "580.126.20" : "595.45.04", Modeset: random.Next(2) == 0)), legacy: random.Next(2) == 0,
                Policy.Default with { AtReboot = (AtReboot)random.Next(2) })
            .With("101", "0000:01:00").With("102", "0000:01:00.0;0000:01:00.1,pcie=1").With("103", "0000:02:00").With("104");
        var (qm, story) = (host.Qm, new StringBuilder($"life {seed}{(host.Qm.IsLegacy ? ", old clean-up" : "")}\n"));
        try
        {
            for (var i = 0; i < 25; i++)
            {
                story.AppendLine(Event(host, random));
                Check(host);
            }
            foreach (var vm in _vms)
            {
                host.Proxmox.Kill(vm);
                qm.LoseCleanup(vm);
            }
            host.Kernel.Pause(TimeSpan.FromMinutes(4));
            story.AppendLine("all are gone");
            host.Rounds(TimeSpan.FromSeconds(15));
            host.ShouldBeHome();
            return story.ToString();
        }
        catch (Exception broken)
        {
            throw new InvalidOperationException($"{story}\n{broken.Message}", broken);
        }
    }

    static string Event(VmHost host, Random random)
    {
        var (qm, vm) = (host.Qm, _vms[random.Next(_vms.Length)]);
        switch (random.Next(15))
        {
            case 0 or 1 or 2 or 3:
                var trouble = random.Next(3) == 0 ? (StartTrouble)random.Next(5) : StartTrouble.None;
                if (random.Next(6) == 0)
                    host.KillNextHookAfter(random.Next(60));
                return $"start {vm} {trouble}: {qm.Start(vm, trouble) ?? "went"}";
            case 4 or 5:
                if (random.Next(6) == 0)
                    host.KillNextHookAfter(random.Next(60));
                return $"stop {vm}: {qm.Stop(vm, dies: random.Next(5) > 0) ?? "went"}";
            case 6:
                return $"shutdown {vm}: {qm.Shutdown(vm, timesOut: random.Next(2) == 0) ?? "went"}";
            case 7:
                return $"reboot {vm}: {qm.Reboot(vm, timesOut: random.Next(4) == 0) ?? "went"}";
            case 8:
                qm.PowerOff(vm, TimeSpan.FromSeconds(random.Next(3)));
                return $"{vm} is off";
            case 9 or 10:
                return $"clean-up: {qm.Cleanup() ?? "went"}";
            case 11:
                if (qm.Awaited.FirstOrDefault() is { } lost)
                    qm.LoseCleanup(lost);
                return "a clean-up is lost";
            case 13:
                return Impostors(host, vm, random);
            case 12:
                host.Rounds(TimeSpan.FromSeconds(random.Next(1, 40)));
                return "the timer";
            default:
                host.Kernel.Pause(TimeSpan.FromSeconds(random.Next(30)));
                return "time goes by";
        }
    }

    /// <summary>An unprivileged process gets the PID that a VM's files still name, calls itself like it, and has its lock file locked.</summary>
    static string Impostors(VmHost host, string vm, Random random)
    {
        if (host.Proxmox.Qemu(vm) is not null || !int.TryParse(host.Kernel.Files.Read(ProxmoxHost.PidFile(vm)), CultureInfo.InvariantCulture, out var pid)
            || host.Kernel.RunningProcesses.Any(p => p.Pid == pid))
        {
            return "no PID is free for an impostor";
        }
        host.Kernel.Pause(TimeSpan.FromSeconds(1));
        var impostor = Everywhere.Impostor.All[random.Next(Everywhere.Impostor.All.Length)];
        var process = impostor.Start(host.Kernel, pid);
        process.CommandLine = ["/usr/bin/kvm", "-id", vm, "-pidfile", $"/var/run/qemu-server/{vm}.pid"];
        return $"{impostor} as {pid}, which was VM {vm}";
    }

    static void Check(VmHost host)
    {
        host.Kernel.Hazards.ShouldBeEmpty();
        host.Desk.Locks.IsFree().ShouldBeTrue();
        foreach (var (vm, slot) in new[] { ("101", "0000:01:00"), ("102", "0000:01:00"), ("103", "0000:02:00") })
        {
            if (host.Proxmox.Qemu(vm) is null)
                continue;
            foreach (var function in host.Kernel.Devices.Where(d => d.Address.Slot == slot))
                function.Driver.ShouldBe(Owner.Vfio, $"VM {vm} runs with it\n{host.Told}");
            host.Leases.ShouldContain(l => l.Gpu.Slot == slot && l.Guest == Guest(vm), host.Told);
        }
    }
}
