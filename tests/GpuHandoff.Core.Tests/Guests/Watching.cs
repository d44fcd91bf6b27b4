using GpuHandoff.Goals;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Guests.VmHost;

namespace GpuHandoff.Core.Tests.Guests;

/// <summary>What pre-start leaves behind stays with the VM, and brings the GPU home where nobody else does.</summary>
public class Watching
{
    static VmHost One(bool legacy = false) => new VmHost(Hosts.SingleGpu(), legacy).With("101", "0000:01:00");

    /// <summary>How often it found something to do.</summary>
    static int Watch(VmHost host, CancellationToken stop = default)
    {
        var tries = 0;
        new Watch(host.Kernel, host.Desk.Ledger, () =>
        {
            tries++;
            host.Desk.Turn(9002).Reconcile(Policy.Default, waits: false, CancellationToken.None, "101");
        }).Over("101", stop);
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
    public void A_watch_that_is_told_to_stop_stops()
    {
        var host = One();
        host.Qm.Start("101");
        using var stop = new CancellationTokenSource();
        host.Kernel.Later(TimeSpan.FromMinutes(10), stop.Cancel);
        Watch(host, stop.Token).ShouldBe(0);
        host.Leases.ShouldHaveSingleItem();
        host.ShouldHave("101", First);
    }
}
