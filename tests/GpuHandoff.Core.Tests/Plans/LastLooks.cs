using GpuHandoff.Kernel;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>What a last look allows: no more users than the proof had explained, and no interrupts.</summary>
public class LastLooks
{
    [Fact]
    public void One_user_more_refuses_and_one_less_does_not()
    {
        var kernel = Hosts.TwoIdenticalGpus();
        var look = new LastLook(null, [new("nvidia", 1)]);
        look.WhyNot(kernel).ShouldBeNull();
        var first = kernel.OpenNode("/dev/nvidiactl", kernel.StartProcess("a"));
        look.WhyNot(kernel).ShouldBeNull();
        kernel.OpenNode("/dev/nvidiactl", kernel.StartProcess("b"));
        look.WhyNot(kernel).ShouldNotBeNull().ShouldContain("has 2 users that are no modules, and had 1 a moment before");
        first.Dispose();
        look.WhyNot(kernel).ShouldBeNull();
    }

    [Fact]
    public void Interrupts_refuse()
    {
        var kernel = Hosts.TwoIdenticalGpus();
        var look = new LastLook(new("/sys/bus/pci/devices/0000:01:00.0/msi_irqs"), []);
        look.WhyNot(kernel).ShouldBeNull();
        kernel.OpenNode("/dev/nvidia0", kernel.StartProcess("a"));
        look.WhyNot(kernel).ShouldNotBeNull().ShouldContain("the GPU is open");
    }
}
