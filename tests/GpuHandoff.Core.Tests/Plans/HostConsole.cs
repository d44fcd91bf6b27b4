using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Plans;

/// <summary>The host's text console steps aside and comes back; another card's is nobody's business of ours.</summary>
public class HostConsole
{
    static readonly Policy _agreed = Policy.Default with { LoseConsole = true };
    static readonly Policy _unbind = Policy.Default with { By = FreeBy.Unbind };

    static IEnumerable<string> ConsoleCalls(Desk desk) => desk.Kernel.Calls
        .Where(c => c.Contains("vtconsole") || c.Contains("platform") || c.Contains("graphics"));

    static VtConsole? Fbcon(Desk desk) => Displays.Consoles(desk.Kernel).SingleOrDefault(c => c.IsOnFrameBuffers());

    // ---- case 40 ----

    [Fact]
    public void Only_the_frame_buffer_console_is_unbound_and_before_the_driver_is_unloaded()
    {
        var desk = new Desk(Hosts.NvidiaConsole());
        desk.Done(Target.Vfio);
        ConsoleCalls(desk).ShouldBe(["write \"0\" /sys/class/vtconsole/vtcon1/bind"]);
        desk.Kernel.Calls.TakeWhile(c => !c.Contains("vtconsole")).ShouldNotContain(c => c.StartsWith("rmmod") || c.Contains("0000:01:00.0\" /sys/bus/pci/drivers"));
    }

    [Fact]
    public void The_console_goes_after_the_siblings_which_may_still_refuse()
    {
        var desk = new Desk(Hosts.NvidiaConsole());
        desk.Planned(Target.Vfio).Phases.Select(p => p.Name).ShouldBe(["prepare", "power", "siblings", "console", "release", "bind"]);
    }

    // ---- case 41 ----

    [Theory]
    [InlineData("550.163.01")]
    [InlineData("580.126.20")]
    [InlineData("595.45.04")]
    public void On_the_way_back_nvidia_drm_comes_first_and_the_console_is_bound_whatever_its_number_and_read_back(string version)
    {
        var desk = new Desk(Hosts.NvidiaConsole(new(version)));
        desk.Kernel.MoveConsoleNumbers();
        var before = desk.Picture();
        desk.Done(Target.Vfio);
        Fbcon(desk).ShouldBeNull();
        desk.Ledger.Homes().ShouldHaveSingleItem().Console.ShouldNotBeNull().FrameBuffers.ShouldBe(["nvidia-drmdrmfb"]);

        desk.Done(Target.Host);

        Fbcon(desk).ShouldNotBeNull().ShouldBe(new VtConsole("vtcon2", "(M) frame buffer device", Bound: true));
        desk.Kernel.Calls.SkipWhile(c => !c.StartsWith("modprobe nvidia_drm")).ShouldNotContain(c => c.Contains("vtconsole"), "fbcon binds itself when its frame buffer comes");
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_console_that_something_else_has_detached_meanwhile_is_bound_again_and_drawn()
    {
        var desk = new Desk(Hosts.NvidiaConsole());
        var before = desk.Picture();
        desk.Done(Target.Vfio);
        DetachWhenItComes(desk);

        desk.Done(Target.Host);

        desk.Kernel.Calls.SkipWhile(c => !c.StartsWith("modprobe nvidia_drm")).ShouldContain("write \"1\" /sys/class/vtconsole/vtcon1/bind");
        desk.Kernel.Redraws.ShouldBe(1, "the visible terminal is drawn again");
        desk.Picture().ShouldBe(before);
    }

    /// <summary>Another program takes the terminals off fbcon as soon as nvidia_drm has brought it back.</summary>
    static void DetachWhenItComes(Desk desk) => desk.Kernel.Faults.Before(
        c => c.StartsWith("modprobe nvidia_uvm"), k => k.Elsewhere(other => other.Write(Sys.VtConsoles / "vtcon1/bind", "0", TimeSpan.FromSeconds(1))));

    // ---- booted in VGA text mode: no system console driver is left ----

    [Theory]
    [InlineData("nvidia-console-after-vga-text")]
    [InlineData("nvidia-console-after-vga-text-580")]
    public void A_console_that_the_kernel_could_not_bind_again_is_not_detached_by_hand(string host)
    {
        foreach (var policy in new[] { Policy.Default, _unbind })
        {
            var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
            var before = desk.Picture();
            var plan = desk.Planned(Target.Vfio, policy: policy);
            plan.Steps().OfType<DetachConsole>().ShouldBeEmpty();
            plan.Notes.ShouldContain(n => n.Contains("could not bind it again by hand"));
            desk.Done(Target.Vfio, policy: policy);
            desk.Kernel.Describe().ShouldContain("console dummy device");
            desk.Done(Target.Host, policy: policy);
            desk.Picture().ShouldBe(before);
            desk.Memo.ToString().ShouldNotContain("warn");
        }
    }

    [Fact]
    public void An_old_kernels_console_that_holds_the_module_is_detached_even_so_and_comes_back_with_the_driver()
    {
        var desk = new Desk(Hosts.NvidiaConsoleAfterVgaText());
        desk.Kernel.LetFbconHoldModules();
        var before = desk.Picture();
        desk.Planned(Target.Vfio).Steps().OfType<DetachConsole>().ShouldHaveSingleItem();
        desk.Done(Target.Vfio);
        desk.Done(Target.Host);
        desk.Picture().ShouldBe(before);
    }

    [Fact]
    public void A_console_that_cannot_be_bound_by_hand_is_told_with_what_brings_it_back()
    {
        var desk = new Desk(Hosts.NvidiaConsoleAfterVgaText());
        desk.Done(Target.Vfio);
        DetachWhenItComes(desk);
        desk.Done(Target.Host);
        desk.Memo.ToString().ShouldContain("no system console driver is left");
        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
    }

    [Theory]
    [InlineData("nvidia-console")]
    [InlineData("nvidia-console-580")]
    [InlineData("nvidia-console-old-kernel")]
    [InlineData("nouveau-console")]
    [InlineData("amd-gpu")]
    public void The_console_of_the_cards_own_driver_comes_back_in_both_ways_of_freeing_it(string host)
    {
        foreach (var policy in new[] { Policy.Default, _unbind })
        {
            var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
            var (before, gpu) = (desk.Picture(), desk.Survey().Gpus[0].Address.ToString());
            desk.Done(Target.Vfio, gpu, policy);
            desk.Kernel.Describe().ShouldContain("console dummy device");
            // nouveau's card is handed back to where it came from.
            desk.Done(Target.Host, gpu, policy);
            desk.Picture().ShouldBe(before);
            Fbcon(desk).ShouldNotBeNull().Bound.ShouldBeTrue();
            desk.Memo.ToString().ShouldNotContain("warn");
        }
    }

    [Fact]
    public void A_count_of_nvidia_drm_that_the_console_explains_is_no_reason_to_refuse()
    {
        var desk = new Desk(Hosts.NvidiaConsoleOnAnOldKernel());
        ModuleList.Parse(desk.Kernel.Read(Sys.Proc / "modules")!).First(m => m.Name == "nvidia_drm").Users().ShouldBe(1);
        desk.Done(Target.Vfio);
    }

    [Fact]
    public void A_console_that_an_old_driver_needs_gone_and_that_does_not_let_go_is_rolled_back_by_the_modules_own_refusal()
    {
        var desk = new Desk(Hosts.NvidiaConsoleOnAnOldKernel());
        var before = desk.Picture();
        desk.Kernel.MakeConsolesDeaf();
        var back = desk.Run(Target.Vfio).ShouldBeOfType<Outcome.RolledBack>();
        back.Cause!.Step.ShouldBe(new UnloadModule("nvidia_drm", back.Cause.Step.ShouldBeOfType<UnloadModule>().Parameters));
        desk.Picture().ShouldBe(before);
        desk.Memo.ToString().ShouldContain("vtcon1 is still bound");
    }

    [Fact]
    public void A_console_that_does_not_let_go_is_told_and_no_obstacle_where_the_driver_does_without()
    {
        var desk = new Desk(Hosts.NvidiaConsole());
        desk.Kernel.MakeConsolesDeaf();
        desk.Done(Target.Vfio);
        desk.Memo.ToString().ShouldContain("the kernel reported success, but vtcon1 is still bound");
    }

    // ---- case 42 ----

    [Fact]
    public void A_firmware_picture_that_is_gone_for_good_is_no_error_where_the_driver_has_the_console()
    {
        var desk = new Desk(Hosts.FirmwareConsole(new("570.211.01")));
        desk.Done(Target.Vfio, policy: _agreed);
        // Meanwhile the administrator has set the driver up.
        var home = desk.Ledger.Homes().ShouldHaveSingleItem();
        desk.Ledger.Keep(home with { Modules = [.. home.Modules.Select(m => m.Name == "nvidia_drm" ? m with { Parameters = ["modeset=1", "fbdev=1"] } : m)] });

        desk.Done(Target.Host);

        Fbcon(desk).ShouldNotBeNull().Bound.ShouldBeTrue();
        desk.Kernel.Describe().ShouldContain("nvidia-drmdrmfb");
        desk.Memo.ToString().ShouldNotContain("warn");
    }

    [Fact]
    public void Binding_a_firmware_picture_that_went_this_instant_is_no_error()
    {
        var desk = new Desk(Hosts.DatacenterConsole());
        desk.Done(Target.Vfio);
        var step = desk.Planned(Target.Host).Steps().OfType<BindFirmwareDisplay>().ShouldHaveSingleItem();
        desk.Kernel.LoseFirmwarePicture();
        step.Run(desk.Kernel, Limits.Default);
        step.Look(desk.Kernel).ShouldBe(Position.There);
    }

    // ---- case 43 ----

    [Theory]
    [InlineData("with-igpu")]
    [InlineData("console-on-the-other-card")]
    public void With_another_cards_screen_there_no_console_is_touched_in_either_direction(string host)
    {
        foreach (var policy in new[] { Policy.Default, _unbind })
        {
            var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
            var before = desk.Picture();
            desk.Planned(Target.Vfio, policy: policy).Steps().OfType<DetachConsole>().ShouldBeEmpty();
            desk.Done(Target.Vfio, policy: policy);
            Fbcon(desk).ShouldNotBeNull().Bound.ShouldBeTrue();
            desk.Kernel.Describe().ShouldContain("i915drmfb");
            desk.Done(Target.Host, policy: policy);
            ConsoleCalls(desk).ShouldBeEmpty();
            desk.Picture().ShouldBe(before);
        }
    }

    [Fact]
    public void A_screen_that_comes_between_plan_and_run_keeps_the_console()
    {
        var desk = new Desk(Hosts.NvidiaConsole());
        var plan = desk.Planned(Target.Vfio);
        desk.Kernel.ShowSomethingElsewhere();
        desk.Run(plan).ShouldBeOfType<Outcome.Done>();
        ConsoleCalls(desk).ShouldBeEmpty();
        Fbcon(desk).ShouldNotBeNull().Bound.ShouldBeTrue();
    }

    // ---- case 44 ----

    [Theory]
    [InlineData("simpledrm-console", "simple-framebuffer")]
    [InlineData("vesa-console", "vesa-framebuffer")]
    [InlineData("firmware-console", "efi-framebuffer")]
    public void A_firmware_picture_in_the_cards_memory_is_released_before_vfio_is_bound(string host, string driver)
    {
        foreach (var hidden in new[] { false, true })
        {
            var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
            desk.Kernel.HidesMemory = hidden;
            desk.Survey().FirmwareDisplays.ShouldBe([new($"{driver}.0", driver, new(0, 1, 0, 0))]);
            desk.Done(Target.Vfio, policy: _agreed);
            desk.Kernel.Calls.TakeWhile(c => !c.EndsWith("vfio-pci/bind", StringComparison.Ordinal) || !c.Contains(".0\""))
                .ShouldContain($"write \"{driver}.0\" /sys/bus/platform/drivers/{driver}/unbind");
        }
    }

    [Fact]
    public void A_picture_on_a_3d_controller_stays_and_is_bound_again_with_its_console()
    {
        var desk = new Desk(Hosts.DatacenterConsole());
        var before = desk.Picture();
        before.ShouldContain("firmware simple-framebuffer.0 bound");
        desk.Done(Target.Vfio);
        desk.Kernel.Describe().ShouldContain("firmware simple-framebuffer.0 unbound");
        desk.Done(Target.Host);
        desk.Picture().ShouldBe(before);
        Fbcon(desk).ShouldNotBeNull().Bound.ShouldBeTrue();
    }

    // ---- consent ----

    [Theory]
    [InlineData("firmware-console", "550.163.01", "modeset=1 fbdev=1")]
    [InlineData("simpledrm-console", "550.163.01", "modeset=1 fbdev=1")]
    [InlineData("vga-text-console", "550.163.01", "VGA text mode")]
    [InlineData("vesa-console", "535.247.01", "cannot show a console")]
    public void The_only_console_on_a_vga_card_is_not_ended_without_consent(string host, string version, string told)
    {
        var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
        desk.Survey().Nvidia.ToString().ShouldBe(version);
        var finding = desk.Refused(Target.Vfio).Findings.ShouldHaveSingleItem();
        finding.Code.ShouldBe("console-would-be-lost");
        $"{finding.Hint} {string.Join(' ', finding.Evidence)}".ShouldContain(told);
        finding.Hint.ShouldContain("--lose-console");
        desk.Planned(Target.Vfio, policy: _agreed).Notes.ShouldContain(n => n.Contains("nothing but a boot brings it back"));
    }

    [Theory]
    [InlineData("550.163.01", "\"options nvidia-drm modeset=1 fbdev=1\"")]
    [InlineData("570.211.01", "\"options nvidia-drm modeset=1\"")]
    [InlineData("590.48.01", "\"options nvidia-drm modeset=1\"")]
    public void The_remedy_fits_the_drivers_release(string version, string line) =>
        new Desk(Hosts.FirmwareConsole(new(version, Modeset: false))).Refused(Target.Vfio).Findings.ShouldHaveSingleItem().Hint.ShouldContain(line);

    [Fact]
    public void A_card_may_be_agreed_to_by_its_own_policy()
    {
        var own = Policy.Default with { Own = Policy.Default.Own.Add(new(0, 1, 0, 0), _agreed) };
        new Desk(Hosts.FirmwareConsole()).Planned(Target.Vfio, policy: own);
    }

    [Fact]
    public void A_driver_that_shows_the_console_itself_asks_for_no_consent()
    {
        foreach (var host in new[] { "nvidia-console", "nouveau-console", "with-igpu", "datacenter-console" })
        {
            var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
            desk.Planned(Target.Vfio, desk.Survey().NvidiaGpus().First().Address.ToString()).Notes.ShouldNotContain(n => n.Contains("console"));
        }
    }

    [Fact]
    public void A_console_that_is_lost_already_is_asked_about_no_more_and_the_way_back_says_why_there_is_none()
    {
        var desk = new Desk(Hosts.SimpledrmConsole());
        desk.Done(Target.Vfio, policy: _agreed);
        desk.Planned(Target.Host).Notes.ShouldHaveSingleItem().ShouldContain("nvidia_drm modeset=1 fbdev=1");
        desk.Done(Target.Host);
        desk.Kernel.Describe().ShouldContain("console dummy device");
        desk.Done(Target.Vfio);
    }

    // ---- it does not come back ----

    [Fact]
    public void A_console_that_does_not_come_back_is_a_warning_with_its_reason_and_the_card_is_home()
    {
        var desk = new Desk(Hosts.NvidiaConsole());
        desk.Done(Target.Vfio);
        DetachWhenItComes(desk);
        desk.Kernel.Faults.Before(c => c.StartsWith("write \"1\" /sys/class/vtconsole"), k => k.MakeConsolesDeaf());
        desk.Run(Target.Host).ShouldBeOfType<Outcome.Done>();
        desk.DriverOf("0000:01:00.0").ShouldBe("nvidia");
        desk.Memo.ToString().ShouldContain("vtcon1 reads unbound after the kernel reported success");
        desk.Ledger.Homes().ShouldBeEmpty();
    }

    [Fact]
    public void A_frame_buffer_that_does_not_come_back_is_waited_for_only_so_long()
    {
        var desk = new Desk(Hosts.NvidiaConsole());
        desk.Done(Target.Vfio);
        desk.Kernel.Faults.Before(c => c.StartsWith("modprobe nvidia_drm"), k => k.UnplugMonitors());
        var since = desk.Kernel.Uptime;
        desk.Run(Target.Host).ShouldBeOfType<Outcome.Done>();
        desk.Memo.ToString().ShouldContain("no frame buffer has come back");
        (desk.Kernel.Uptime - since).ShouldBeInRange(TimeSpan.FromSeconds(5), TimeSpan.FromSeconds(7));
    }

    // ---- rollback and recovery ----

    [Theory]
    [InlineData("nvidia-console")]
    [InlineData("nvidia-console-580")]
    [InlineData("nvidia-console-old-kernel")]
    [InlineData("nvidia-console-after-vga-text")]
    [InlineData("nvidia-console-after-vga-text-580")]
    [InlineData("nouveau-console")]
    [InlineData("datacenter-console")]
    public void A_rollback_brings_the_console_back(string host)
    {
        foreach (var policy in new[] { Policy.Default, _unbind })
        {
            // Before the driver has let go, when nothing but the console's own step brings it back, and after that.
            foreach (var refused in new[] { "rmmod nvidia_drm", "nvidia/unbind", "vfio-pci/bind" })
            {
                var desk = new Desk(Hosts.All.First(h => h.Name == host).Boot());
                var before = desk.Picture();
                desk.Kernel.Faults.Refuse(c => c.Contains(refused) && (c.Contains("0000:01:00.0\"") || c.StartsWith("rmmod")), Errno.InputOutput);
                if (desk.Run(Target.Vfio, "0000:01:00.0", policy) is Outcome.Done)
                    continue;
                desk.Kernel.Describe().ShouldContain("console frame buffer device");
                desk.Picture().ShouldBe(before, desk.Memo.ToString());
            }
        }
    }

    [Fact]
    public void A_firmware_console_is_bound_again_where_vfio_never_came()
    {
        var desk = new Desk(Hosts.SimpledrmConsole());
        var before = desk.Kernel.Describe("vfio_pci");
        desk.Kernel.Faults.Refuse(c => c.StartsWith("rmmod nvidia_uvm"), Errno.InputOutput);
        desk.Run(Target.Vfio, policy: _agreed).ShouldBeOfType<Outcome.RolledBack>(desk.Memo.ToString());
        desk.Kernel.Describe("vfio_pci").ShouldBe(before);
    }

    [Fact]
    public void Recover_brings_the_console_of_a_killed_run_back()
    {
        for (var life = 0; ; life++)
        {
            var desk = new Desk(Hosts.NvidiaConsole());
            if (!Everywhere.Mortal.Dies(desk, life, mortal => desk.Turn(666, mortal).HandOver(Target.Vfio, null, Policy.Default, CancellationToken.None)))
                break;
            desk.Recover();
            if (desk.DriverOf("0000:01:00.0") == "nvidia")
                desk.Kernel.Describe().ShouldContain("console frame buffer device", customMessage: desk.Memo.ToString());
            else
                desk.DriverOf("0000:01:00.0").ShouldBe("vfio-pci");
        }
    }

    [Fact]
    public void The_record_of_a_console_is_read_back_and_an_older_one_without_it_as_well()
    {
        var desk = new Desk(Hosts.SimpledrmConsole());
        desk.Done(Target.Vfio, policy: _agreed);
        var home = desk.Ledger.Homes().ShouldHaveSingleItem();
        var text = System.Text.Json.JsonSerializer.Serialize(home, Formats.Json.Default.Home);
        var read = System.Text.Json.JsonSerializer.Deserialize(text, Formats.Json.Default.Home).ShouldNotBeNull();
        read.Console.ShouldNotBeNull().IsSameAs(home.Console).ShouldBeTrue();
        read.Console!.OfFirmware().ShouldHaveSingleItem().Device.ShouldBe("simple-framebuffer.0");

        var old = System.Text.Json.JsonSerializer.Serialize(home with { Console = null, Version = 2 }, Formats.Json.Default.Home);
        old.ShouldNotContain("console");
        System.Text.Json.JsonSerializer.Deserialize(old, Formats.Json.Default.Home).ShouldNotBeNull().Console.ShouldBeNull();
        var plain = System.Text.Json.JsonSerializer.Deserialize("""{"vt":"(M) frame buffer device","frameBuffers":["bochs-drmdrmfb"]}""", Formats.Json.Default.ConsoleHome)!;
        plain.OfFirmware().ShouldBeEmpty();
    }
}
