using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Core.Tests.Proxmox;
using GpuHandoff.Goals;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Guests.VmHost;

namespace GpuHandoff.Core.Tests.Guests;

/// <summary>kill -9 of a hook before and after every write to the machine and every line of its records: the GPU comes home.</summary>
public class KilledHooks
{
    static readonly Policy _everybodyGoes = Policy.Default with { Users = Policy.Default.Users.Everybody() };

    public static TheoryData<string> Machines() =>
        new("single-gpu", "single-gpu-580-modeset", "four-functions", "two-identical-gpus", "busy-services", "two-gpus-persistenced", "mps");

    static VmHost Host(string machine) =>
        new VmHost(Hosts.All.First(h => h.Name == machine).Boot(), policy: _everybodyGoes).With("101", "0000:01:00");

    [Theory]
    [MemberData(nameof(Machines))]
    public void A_pre_start_that_is_killed_anywhere_leaves_a_gpu_that_is_home_within_half_a_minute(string machine)
    {
        for (var life = 0; ; life++)
        {
            var host = Host(machine);
            host.KillNextHookAfter(life);
            host.Qm.Start("101");
            if (!host.HookWasKilled)
            {
                life.ShouldBeGreaterThan(5, "a sweep of nothing shows nothing");
                host.ShouldHave("101", First);
                return;
            }
            host.Proxmox.Qemu("101").ShouldBeNull();
            host.ShouldComeHome($"killed after {life} changes\n");
        }
    }

    [Theory]
    [MemberData(nameof(Machines))]
    public void A_post_stop_that_is_killed_anywhere_leaves_a_gpu_that_is_home_within_half_a_minute(string machine)
    {
        for (var life = 0; ; life++)
        {
            var host = Host(machine);
            host.Qm.Start("101").ShouldBeNull(host.Told);
            host.KillNextHookAfter(life);
            // pre-stop changes nothing, and outlives whatever it is given.
            host.Qm.PowerOff("101");
            host.Qm.Cleanup();
            if (!host.HookWasKilled)
            {
                life.ShouldBeGreaterThan(5, "a sweep of nothing shows nothing");
                host.ShouldBeHome();
                return;
            }
            host.ShouldComeHome($"killed after {life} changes\n");
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_neighbour_that_went_along_comes_home_with_the_gpu_wherever_the_hook_is_killed(bool stops)
    {
        for (var life = 0; ; life++)
        {
            var host = new VmHost(ProxmoxDesk.GpuBesideUsb()).With("101", "0000:01:00", "0000:05:00.0");
            if (stops)
                host.Qm.Start("101").ShouldBeNull(host.Told);
            host.KillNextHookAfter(life);
            if (stops)
            {
                host.Qm.PowerOff("101");
                host.Qm.Cleanup();
            }
            else
            {
                host.Qm.Start("101");
            }
            if (!host.HookWasKilled)
            {
                life.ShouldBeGreaterThan(5, "a sweep of nothing shows nothing");
                return;
            }
            host.ShouldComeHome($"killed after {life} changes\n");
        }
    }

    [Theory]
    [InlineData("single-gpu")]
    [InlineData("four-functions")]
    public void The_next_start_after_a_killed_hook_gets_the_gpu_and_gives_it_back(string machine)
    {
        foreach (var stops in new[] { false, true })
        {
            for (var life = 0; ; life++)
            {
                var host = Host(machine);
                if (stops)
                    host.Qm.Start("101");
                host.KillNextHookAfter(life);
                if (stops)
                {
                    host.Qm.PowerOff("101");
                    host.Qm.Cleanup();
                }
                else
                {
                    host.Qm.Start("101");
                }
                if (!host.HookWasKilled)
                    break;
                host.Qm.Start("101").ShouldBeNull($"killed after {life} changes\n{host.Told}");
                host.ShouldHave("101", First);
                host.Rounds(TimeSpan.FromMinutes(1));
                host.ShouldHave("101", First);
                host.Qm.Stop("101");
                host.ShouldBeHome($"killed after {life} changes\n");
            }
        }
    }

    [Theory]
    [InlineData("single-gpu")]
    [InlineData("busy-services")]
    public void A_timer_that_is_killed_anywhere_on_the_way_home_is_followed_by_one_that_is_not(string machine)
    {
        for (var life = 0; ; life++)
        {
            var host = Host(machine);
            host.Qm.Start("101").ShouldBeNull(host.Told);
            host.Qm.PowerOff("101");
            if (!Mortal.Dies(host.Desk, life, mortal => host.Desk.Turn(666, mortal).MakeRounds(_everybodyGoes, waits: false, CancellationToken.None)))
            {
                life.ShouldBeGreaterThan(5, "a sweep of nothing shows nothing");
                host.ShouldBeHome();
                return;
            }
            host.ShouldComeHome($"killed after {life} changes\n");
        }
    }
}
