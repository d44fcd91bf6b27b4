using GpuHandoff.Core.Tests.Everywhere;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;

namespace GpuHandoff.Core.Tests.Plans;

public class KeepingAwake
{
    const string Gpu = "0000:01:00.0";
    const string Audio = "0000:01:00.1";

    static string Power(Desk desk, string function) =>
        $"{desk.Kernel.Read(new($"/sys/bus/pci/devices/{function}/power/control"))} {desk.Kernel.Read(new($"/sys/bus/pci/devices/{function}/d3cold_allowed"))}";

    [Theory]
    [InlineData(FreeBy.Unload)]
    [InlineData(FreeBy.Unbind)]
    public void A_lent_card_may_neither_sleep_nor_lose_power_and_a_returned_one_may_as_before(FreeBy way)
    {
        var desk = new Desk(Hosts.ResizableBar());
        var policy = Policy.Default with { By = way };
        (Power(desk, Gpu), Power(desk, Audio)).ShouldBe(("auto 1", "auto 1"));

        desk.Done(Target.Vfio, policy: policy);
        (Power(desk, Gpu), Power(desk, Audio)).ShouldBe(("on 0", "on 0"));

        desk.Done(Target.Host, policy: policy);
        (Power(desk, Gpu), Power(desk, Audio)).ShouldBe(("auto 1", "auto 1"));
    }

    [Fact]
    public void The_functions_are_held_before_the_first_one_is_let_go_and_free_only_after_the_last_one_is_home()
    {
        var desk = new Desk(Hosts.ResizableBar());
        desk.Done(Target.Vfio);
        var calls = desk.Kernel.Calls.ToList();
        calls.FindLastIndex(c => c.Contains("d3cold")).ShouldBeLessThan(calls.FindIndex(c => c.Contains("unbind")));
        calls.FindIndex(c => c.Contains("01:00.1/power/control")).ShouldBeLessThan(calls.FindIndex(c => c.Contains("unbind")));

        desk.Done(Target.Host);
        calls = [.. desk.Kernel.Calls.Skip(calls.Count)];
        calls.FindIndex(c => c.Contains("power/control") || c.Contains("d3cold")).ShouldBeGreaterThan(calls.FindLastIndex(c => c.Contains("/bind")));
    }

    [Fact]
    public void Settings_that_are_so_already_are_not_written()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Kernel.Elsewhere(k => k.Write(new($"/sys/bus/pci/devices/{Gpu}/d3cold_allowed"), "0", TimeSpan.FromSeconds(1)));
        desk.Done(Target.Vfio);
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("01:00.0/d3cold_allowed"));
        desk.Planned(Target.Vfio).IsEmpty().ShouldBeTrue();
    }

    [Fact]
    public void Vfio_pci_itself_allows_its_functions_to_sleep_and_is_told_otherwise_every_time()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        Power(desk, Gpu).ShouldBe("on 0");
        // The undo of a return binds it anew, and as before means awake.
        desk.Kernel.Faults.Refuse(call => call.Contains("snd_hda_intel/bind"), Errno.InputOutput);
        desk.Run(Target.Host).ShouldBeOfType<Outcome.RolledBack>();
        (Power(desk, Gpu), Power(desk, Audio)).ShouldBe(("on 0", "on 0"));
    }

    [Fact]
    public void A_lent_card_that_somebody_allowed_to_sleep_again_is_held_again_and_the_first_settings_are_put_back()
    {
        var desk = new Desk(Hosts.SingleGpu());
        desk.Done(Target.Vfio);
        // NVIDIA's udev rule does so with every bind, vfio-pci's too.
        desk.Kernel.Elsewhere(k => k.Write(new($"/sys/bus/pci/devices/{Gpu}/power/control"), "auto", TimeSpan.FromSeconds(1)));
        desk.Planned(Target.Vfio).Steps().ShouldHaveSingleItem().ShouldBeOfType<HoldPower>();
        desk.Done(Target.Vfio);
        desk.Done(Target.Host);
        Power(desk, Gpu).ShouldBe("on 1");
    }

    [Fact]
    public void A_run_that_was_killed_right_after_the_functions_were_held_does_not_take_that_for_their_home()
    {
        var desk = new Desk(Hosts.ResizableBar());
        var before = desk.Picture();
        Mortal.DiesBefore(desk, call => call.Contains("01:00.1/driver_override"), desk.Running(Target.Vfio)).ShouldBeTrue();
        Power(desk, Gpu).ShouldBe("on 0");

        desk.Done(Target.Vfio);
        desk.Done(Target.Host);

        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_run_that_was_killed_right_after_the_functions_were_held_is_undone_by_the_way_back()
    {
        var desk = new Desk(Hosts.ResizableBar());
        var before = desk.Picture();
        Mortal.DiesBefore(desk, call => call.Contains("01:00.1/driver_override"), desk.Running(Target.Vfio)).ShouldBeTrue();
        desk.Done(Target.Host);
        desk.Picture().ShouldBe(before);
        desk.Ledger.Homes().ShouldBeEmpty();
    }

    [Fact]
    public void A_setting_that_does_not_hold_ends_the_hand_over_before_any_driver_lets_go()
    {
        var desk = new Desk(Hosts.ResizableBar());
        var before = desk.Picture();
        desk.Kernel.Faults.Ignore(call => call.Contains("01:00.0/d3cold_allowed"), once: true);
        desk.Run(Target.Vfio).ShouldBeOfType<Outcome.RolledBack>().Cause!.Step.ShouldBeOfType<HoldPower>();
        desk.Picture().ShouldBe(before);
        desk.Kernel.Calls.ShouldAllBe(call => !call.Contains("unbind"));
    }

    [Fact]
    public void A_card_from_a_record_of_an_older_program_keeps_the_settings_that_it_has()
    {
        var desk = new Desk(Hosts.ResizableBar());
        desk.Done(Target.Vfio);
        var home = desk.Ledger.Homes().ShouldHaveSingleItem();
        desk.Ledger.Keep(home with { Version = 1, Functions = [.. home.Functions.Select(f => f with { Power = null })] });
        desk.Planned(Target.Host).Steps().ShouldAllBe(s => !(s is HoldPower));
        desk.Done(Target.Host);
        desk.DriverOf(Gpu).ShouldBe("nvidia");
    }

    [Fact]
    public void A_card_that_stays_on_vfio_pci_in_a_vm_is_left_as_it_is()
    {
        var desk = new Desk(Hosts.AlreadyOnVfio());
        desk.Done(Target.Vfio);
        desk.Kernel.StartVm("111", [.. desk.Survey().Gpus.Single().Functions.Select(f => f.Address)]);
        var calls = desk.Kernel.Calls.Count;
        desk.Run(Target.Host).ShouldBe(new Outcome.Done(0));
        desk.Kernel.Calls.Count.ShouldBe(calls);
    }

    [Fact]
    public void What_the_kernel_does_not_offer_is_not_written()
    {
        new Power(null, true).Held().ShouldBe(new(null, false));
        new Power("auto", null).Held().ShouldBe(new("on", null));
        new Power(null, true).ToString().ShouldBe("D3cold allowed");
    }
}
