using System.Reflection;
using GpuHandoff.Goals;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;
using static GpuHandoff.Core.Tests.Guests.VmHost;

namespace GpuHandoff.Core.Tests.Guests;

/// <summary>What pre-start leaves behind stays with the VM, and brings the GPU home where nobody else does.</summary>
public class Watching
{
    static readonly TimeSpan _grace = GpuHandoff.Runs.Watch.Grace;

    static VmHost One(bool legacy = false) => new VmHost(Hosts.SingleGpu(), legacy).With("101", "0000:01:00");

    /// <summary>How often it found something to do.</summary>
    static int Watch(VmHost host, IKernel? through = null, Guest? guest = null, Action<string>? tells = null, CancellationToken stop = default)
    {
        var tries = 0;
        new Watch(through ?? host.Kernel, host.Desk.Ledger, () =>
        {
            tries++;
            return !host.Desk.Turn(9002).Reconcile(Policy.Default, waits: false, CancellationToken.None, guest ?? Guest("101")).IsEmpty;
        }, tells ?? (what => throw new InvalidOperationException(what))).Over(guest ?? Guest("101"), stop);
        return tries;
    }

    [Fact]
    public void A_vm_that_dies_alone_has_its_gpu_brought_home_seconds_later()
    {
        var host = One();
        host.Qm.Start("101");
        var died = TimeSpan.Zero;
        host.Kernel.Later(TimeSpan.FromHours(100), () =>
        {
            host.Qm.PowerOff("101");
            died = host.Kernel.Uptime;
        });

        Watch(host).ShouldBe(1);

        host.ShouldBeHome();
        (host.Kernel.Uptime - died).ShouldBeLessThan(TimeSpan.FromSeconds(25));
    }

    [Fact]
    public void A_start_that_fails_after_pre_start_is_noticed_without_a_qemu()
    {
        var host = One();
        host.Qm.Start("101", StartTrouble.QemuFails);
        Watch(host).ShouldBe(1);
        host.ShouldBeHome();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_vms_own_post_stop_comes_first_and_ends_the_watch(bool legacy)
    {
        var host = One(legacy);
        host.Qm.Start("101");
        host.Kernel.Later(TimeSpan.FromMinutes(10), () => host.Qm.PowerOff("101"));
        host.Kernel.Later(TimeSpan.FromMinutes(10) + TimeSpan.FromSeconds(4), () => host.Qm.Cleanup());

        Watch(host).ShouldBe(0);

        host.ShouldBeHome();
        host.Qm.Log[^1].ShouldBe("101 post-stop 0");
    }

    [Fact]
    public void A_vm_that_was_started_anew_has_a_watch_of_its_own_and_the_old_one_ends()
    {
        var host = One();
        host.Qm.Start("101");
        host.Kernel.Later(TimeSpan.FromMinutes(10), () =>
        {
            host.Qm.Stop("101");
            host.Qm.Start("101");
        });
        Watch(host).ShouldBe(0);
        host.ShouldHave("101", First);
    }

    [Fact]
    public void A_vm_that_is_being_started_for_long_is_waited_for()
    {
        var host = One();
        host.Qm.Start("101", StartTrouble.WorkerKilled);
        var locked = host.Proxmox.Lock("101");
        host.Kernel.Later(TimeSpan.FromMinutes(4), locked.Dispose);
        var since = host.Kernel.Uptime;

        Watch(host).ShouldBe(1);

        host.ShouldBeHome();
        (host.Kernel.Uptime - since).ShouldBeGreaterThan(TimeSpan.FromMinutes(4));
    }

    [Fact]
    public void A_group_that_somebody_still_has_open_is_left_to_him_until_he_is_done()
    {
        var host = One();
        // Nobody has noted its process, and its pidfile goes: what is left to see is who has the group open.
        host.Qm.Start("101", StartTrouble.AfterQemu);
        host.Qm.Stop("101", dies: false);
        host.Kernel.Later(TimeSpan.FromMinutes(2), () => host.Proxmox.Kill("101"));
        Watch(host).ShouldBeGreaterThan(1);
        host.ShouldBeHome();
        host.Kernel.Hazards.ShouldBeEmpty();
    }

    [Fact]
    public void Without_a_lease_or_with_one_of_another_vm_there_is_nothing_to_watch_over()
    {
        var host = One().With("102", "0000:01:00");
        Watch(host).ShouldBe(0);
        host.Qm.Start("102").ShouldBeNull(host.Told);
        Watch(host).ShouldBe(0);
        host.ShouldHave("102", First);
    }

    [Fact]
    public void A_card_that_will_not_come_home_is_left_to_a_person_after_three_tries()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.PowerOff("101");
        host.Kernel.FailProbe("nvidia", host.Leases[0].Gpu, 5);
        Watch(host).ShouldBe(3);
        host.Leases[0].IsGivenUp().ShouldBeTrue();
    }

    [Fact]
    public void Another_run_at_the_card_for_a_moment_delays_the_way_home_by_no_more_than_that()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.PowerOff("101");
        var died = host.Kernel.Uptime;
        var other = new MemoryLocks(host.Desk.Locks, "7 gpu-handoff").Try($"gpu-{First}", shared: false)!;
        host.Kernel.Later(_grace + TimeSpan.FromSeconds(2), other.Dispose);

        Watch(host).ShouldBeGreaterThan(1);

        host.ShouldBeHome();
        (host.Kernel.Uptime - died).ShouldBeLessThan(_grace + TimeSpan.FromSeconds(5));
    }

    [Fact]
    public void Who_cannot_wait_for_a_process_to_end_looks_for_it_no_more_often_than_for_one_that_is_gone()
    {
        var host = One();
        host.Qm.Start("101");
        var looks = 0;
        var kernel = LooksOnly.Of(host.Kernel, () => (++looks).ShouldBeLessThan(5000, "it spins"));
        host.Kernel.Later(TimeSpan.FromMinutes(10), () => host.Qm.PowerOff("101"));

        Watch(host, through: kernel).ShouldBe(1);

        host.ShouldBeHome();
        looks.ShouldBeInRange(500, 700);
    }

    /// <summary>A kernel that has no file to spare with which a process could be waited for.</summary>
    public class LooksOnly : DispatchProxy
    {
        IKernel? _kernel;
        Action? _asked;

        public static IKernel Of(IKernel kernel, Action asked)
        {
            var proxy = Create<IKernel, LooksOnly>();
            (((LooksOnly)(object)proxy)._kernel, ((LooksOnly)(object)proxy)._asked) = (kernel, asked);
            return proxy;
        }

        protected override object? Invoke(MethodInfo? targetMethod, object?[]? args)
        {
            if (targetMethod!.Name != nameof(IKernel.AwaitEnd))
                return targetMethod.Invoke(_kernel, BindingFlags.DoNotWrapExceptions, null, args, null);
            _asked!();
            return false;
        }
    }

    [Fact]
    public void Vms_of_two_managers_with_one_name_are_watched_over_apart()
    {
        var host = new VmHost(Hosts.TwoIdenticalGpus()).With("101", "0000:01:00");
        host.Qm.Start("101");
        Guest domain = new(VmManager.Libvirt, "101");
        host.Desk.Turn().Lend(domain, [host.Desk.Survey().Gpus[1].Address], Policy.Default, CancellationToken.None);
        host.Leases.Length.ShouldBe(2, host.Told);
        var qemu = host.Kernel.StartProcess("qemu-system-x86", @"/machine.slice/machine-qemu\x2d3\x2d101.scope/libvirt/emulator");
        qemu.CommandLine = ["/usr/bin/qemu-system-x86_64", "-name", "guest=101"];
        host.Kernel.Files.Write("/run/libvirt/qemu/101.pid", $"{qemu.Pid}");
        host.Qm.PowerOff("101");
        // One that stayed for the domain would stay for good.
        using var stop = new CancellationTokenSource();
        host.Kernel.Later(TimeSpan.FromHours(1), stop.Cancel);

        Watch(host, stop: stop.Token).ShouldBe(1);
        stop.IsCancellationRequested.ShouldBeFalse();
        host.Leases.ShouldHaveSingleItem().Guest.ShouldBe(domain);
        host.Desk.DriverOf(Second).ShouldBe("vfio-pci");

        host.Kernel.EndProcess(qemu);
        Watch(host).ShouldBe(0);
        host.Leases.ShouldHaveSingleItem();
        host.Kernel.Pause(Tenants.LibvirtTakes);
        Watch(host, guest: domain).ShouldBe(1);
        host.ShouldBeHome();
    }

    [Theory]
    [InlineData("proxmox:101", VmManager.Proxmox, "101")]
    [InlineData("libvirt:101", VmManager.Libvirt, "101")]
    [InlineData("libvirt:a:b ,c", VmManager.Libvirt, "a:b ,c")]
    public void A_vm_is_named_with_its_manager(string spelt, VmManager manager, string id)
    {
        GpuHandoff.Guests.Guest.Of(spelt).ShouldBe(new(manager, id));
        new Guest(manager, id).Spelt().ShouldBe(spelt);
    }

    [Theory]
    [InlineData("101")]
    [InlineData("proxmox:")]
    [InlineData("xen:101")]
    [InlineData(":101")]
    public void What_names_no_manager_is_no_vm(string spelt) => GpuHandoff.Guests.Guest.Of(spelt).ShouldBeNull();

    [Fact]
    public void A_disk_that_is_full_for_a_minute_is_told_of_once_and_outlived()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.PowerOff("101");
        var full = host.Kernel.Uptime + TimeSpan.FromMinutes(1);
        host.Desk.Ledger.Before = what =>
        {
            if (host.Kernel.Uptime < full)
                throw new LedgerRefused("the journal cannot be written: No space left on device", "make room");
        };
        var endings = new List<Ending>();
        new Watch(host.Kernel, host.Desk.Ledger, () =>
        {
            var now = host.Desk.Turn(9002).Reconcile(Policy.Default, waits: false, CancellationToken.None, Guest("101"));
            endings.AddRange(now);
            return !now.IsEmpty;
        }, what => throw new InvalidOperationException(what)).Over(Guest("101"), CancellationToken.None);

        host.ShouldBeHome();
        endings.Count.ShouldBe(2, "it is told once, and comes home once");
        endings[0].ShouldBeOfType<Ending.Refused>().Why.Findings.ShouldHaveSingleItem().ShouldBe(
            new("ledger", "the journal cannot be written: No space left on device", [], "make room"), "the way out is said with it");
        host.Kernel.Uptime.ShouldBeInRange(full, full + TimeSpan.FromSeconds(25));
        host.Desk.Memo.Lines.ShouldNotContain(line => line.Contains("No space"));
    }

    [Fact]
    public void Records_that_cannot_be_looked_at_for_a_while_are_told_of_once_and_looked_at_again()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.PowerOff("101");
        host.Desk.Ledger.Damage = new("/var/lib/gpu-handoff cannot be listed", "mend the file system");
        host.Kernel.Later(TimeSpan.FromHours(1), () => host.Desk.Ledger.Damage = null);
        var told = new List<string>();

        Watch(host, tells: told.Add).ShouldBe(1);

        told.ShouldBe(["/var/lib/gpu-handoff cannot be listed; mend the file system"]);
        host.ShouldBeHome();
    }

    [Fact]
    public void A_try_that_ends_before_it_begins_is_told_of_and_tried_again()
    {
        var host = One();
        host.Qm.Start("101");
        host.Qm.PowerOff("101");
        var (tries, told) = (0, new List<string>());
        new Watch(host.Kernel, host.Desk.Ledger, () => tries++ < 3
            ? throw new KernelRefused("start the helper process", Errno.TryAgain, "no process to spare")
            : !host.Desk.Turn(9002).Reconcile(Policy.Default, waits: false, CancellationToken.None).IsEmpty, told.Add).Over(Guest("101"), CancellationToken.None);
        told.ShouldBe(["start the helper process: no process to spare"]);
        host.ShouldBeHome();
    }

    [Fact]
    public void A_watch_that_is_told_to_stop_stops()
    {
        var host = One();
        host.Qm.Start("101");
        using var stop = new CancellationTokenSource();
        host.Kernel.Later(TimeSpan.FromMinutes(10), stop.Cancel);
        Watch(host, stop: stop.Token).ShouldBe(0);
        host.Leases.ShouldHaveSingleItem();
        host.ShouldHave("101", First);
    }
}
