using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Plans;

public class Waiting
{
    [Fact]
    public void A_poller_that_has_the_driver_open_for_a_moment_is_waited_for()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.Faults.Refuse(call => call == "rmmod nvidia", Errno.TryAgain, once: true);
        desk.Done(Target.Vfio);
    }

    [Fact]
    public void A_user_of_the_driver_that_stays_is_not_waited_for_long()
    {
        var desk = new Desk(Hosts.SingleGpu());
        var before = desk.Picture();
        desk.Kernel.Faults.Refuse(call => call == "rmmod nvidia", Errno.TryAgain);
        var began = desk.Kernel.Uptime;
        desk.Run(Target.Vfio).ShouldBeOfType<Outcome.RolledBack>();
        (desk.Kernel.Uptime - began).ShouldBeInRange(TimeSpan.FromSeconds(3), TimeSpan.FromSeconds(5));
        desk.Picture().ShouldBe(before);
    }
}
