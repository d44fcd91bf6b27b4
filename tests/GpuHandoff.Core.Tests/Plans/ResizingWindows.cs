using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;

namespace GpuHandoff.Core.Tests.Plans;

public class ResizingWindows
{
    const string Gpu = "0000:01:00.0";
    const ulong Mega = 1UL << 20;

    static readonly Policy _big = Policy.Default with { Bar1 = 16 * 1024 * Mega };

    static ulong Bar1(Desk desk) => desk.Survey().Gpus.Single().Display().Bar1();

    [Theory]
    [InlineData(FreeBy.Unload)]
    [InlineData(FreeBy.Unbind)]
    public void A_window_has_the_size_that_was_asked_for_while_the_card_is_lent_and_its_own_when_it_is_back(FreeBy way)
    {
        var desk = new Desk(Hosts.ResizableBar());
        var before = desk.Picture();
        var policy = _big with { By = way };
        desk.Done(Target.Vfio, policy: policy);
        Bar1(desk).ShouldBe(16 * 1024 * Mega);
        desk.DriverOf(Gpu).ShouldBe("vfio-pci");
        desk.Kernel.Calls.ShouldContain($"write \"14\" /sys/bus/pci/devices/{Gpu}/resource1_resize");
        desk.Planned(Target.Vfio, policy: policy).IsEmpty().ShouldBeTrue();

        // The way back needs no word of it: the record knows.
        desk.Done(Target.Host, policy: Policy.Default with { By = way });
        Bar1(desk).ShouldBe(256 * Mega);
        desk.Picture().ShouldBe(before);
        desk.Kernel.Hazards.ShouldBeEmpty();
    }

    [Fact]
    public void Where_nothing_is_said_no_window_is_touched()
    {
        var desk = new Desk(Hosts.ResizableBar());
        desk.Done(Target.Vfio);
        desk.Done(Target.Host);
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("resize"));
    }

    [Fact]
    public void A_size_that_the_card_does_not_offer_is_refused_with_those_that_it_does()
    {
        var desk = new Desk(Hosts.ResizableBar());
        var finding = desk.Refused(Target.Vfio, policy: Policy.Default with { Bar1 = 32 * 1024 * Mega }).Findings.ShouldHaveSingleItem();
        finding.Code.ShouldBe("bar-size-not-offered");
        finding.Evidence.Single().ShouldBe("it has 256M and offers 64M, 128M, 256M, 512M, 1G, 2G, 4G, 8G, 16G");
    }

    [Fact]
    public void A_card_without_resizable_windows_is_refused_with_the_file_that_is_missing()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Refused(Target.Vfio, policy: _big).Findings.ShouldHaveSingleItem().Evidence.Single().ShouldContain("resource1_resize");
        desk.Done(Target.Vfio);
        desk.Refused(Target.Vfio, policy: _big).Findings.ShouldHaveSingleItem().Code.ShouldBe("bar-size-not-offered");
    }

    [Fact]
    public void A_lent_card_is_resized_anew_and_still_comes_back_with_its_first_size()
    {
        var desk = new Desk(Hosts.ResizableBar());
        var before = desk.Picture();
        desk.Done(Target.Vfio);
        desk.Done(Target.Vfio, policy: _big);
        desk.Done(Target.Vfio, policy: Policy.Default with { Bar1 = 64 * Mega });
        Bar1(desk).ShouldBe(64 * Mega);
        desk.Done(Target.Host);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void The_window_of_a_card_in_a_vm_is_not_resized()
    {
        var desk = new Desk(Hosts.ResizableBar());
        desk.Done(Target.Vfio);
        desk.Kernel.StartVm("111", [.. desk.Survey().Gpus.Single().Functions.Select(f => f.Address)]);
        desk.Refused(Target.Vfio, policy: _big).Findings.ShouldHaveSingleItem().What.ShouldContain("a VM has");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_window_that_finds_no_room_rolls_all_back(bool refused)
    {
        var desk = new Desk(Hosts.ResizableBar());
        var before = desk.Picture();
        if (refused)
            desk.Kernel.Faults.Refuse(call => call.Contains("resize"), Errno.NoSpace, once: true);
        else
            desk.Kernel.Faults.Ignore(call => call.Contains("resize"), once: true);
        var cause = desk.Run(Target.Vfio, policy: _big).ShouldBeOfType<Outcome.RolledBack>().Cause.ShouldNotBeNull();
        cause.Step.ShouldBeOfType<ResizeBar>();
        cause.Reason.ShouldContain(refused ? "Above 4G" : "reads 256M");
        desk.Picture().ShouldBe(before);
    }
}
