using GpuHandoff.Kernel;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Simulation.Sysfs;

namespace GpuHandoff.Core.Tests.Simulation;

public class ConsoleAndResetTests
{
    [Fact]
    public void Vfio_destroys_the_firmwares_framebuffer_for_good()
    {
        var kernel = Hosts.FirmwareConsole();
        kernel.Read("/sys/class/graphics/fb0/name").ShouldBe("EFI VGA");
        kernel.Read("/proc/iomem")!.ShouldContain("efifb");
        kernel.UnloadNvidia();
        kernel.HandOver(Gpu);
        kernel.List("/sys/class/graphics").ShouldBe(["fbcon"]);
        kernel.List("/sys/class/vtconsole").ShouldBe(["vtcon0"]);
        Refused(() => kernel.Write("/sys/bus/platform/drivers/efi-framebuffer/bind", "efi-framebuffer.0")).ShouldBe(Errno.NoDevice);
    }

    [Fact]
    public void Nvidias_framebuffer_goes_with_its_module_and_comes_back_with_it()
    {
        var kernel = Hosts.NvidiaConsole();
        var before = kernel.Describe();
        kernel.Read("/sys/class/vtconsole/vtcon1/bind").ShouldBe("1");
        kernel.Link("/sys/class/graphics/fb0/device").ShouldEndWith(Gpu);
        kernel.Read("/sys/class/graphics/fb0/device/vendor").ShouldBe("0x10de");
        kernel.Unload("nvidia_drm");
        kernel.Exists(new("/sys/class/vtconsole/vtcon1")).ShouldBeFalse();
        kernel.Read("/sys/class/vtconsole/vtcon0/bind").ShouldBe("1");
        kernel.Load("nvidia_drm");
        kernel.Describe().ShouldBe(before);
    }

    [Fact]
    public void A_console_detached_by_hand_stays_so_until_it_is_attached_by_hand_or_its_first_frame_buffer_comes_again()
    {
        var kernel = Hosts.NvidiaConsole();
        kernel.Write("/sys/class/vtconsole/vtcon1/bind", "0");
        kernel.Read("/sys/class/vtconsole/vtcon1/bind").ShouldBe("0");
        kernel.Write("/sys/class/vtconsole/vtcon1/bind", "1");
        kernel.Read("/sys/class/vtconsole/vtcon1/bind").ShouldBe("1");

        kernel.Write("/sys/class/vtconsole/vtcon1/bind", "0");
        kernel.Unload("nvidia_drm");
        kernel.Load("nvidia_drm");
        kernel.Read("/sys/class/vtconsole/vtcon1/bind").ShouldBe("1");
    }

    [Fact]
    public void After_a_boot_in_vga_text_mode_no_console_is_bound_by_hand_but_by_the_next_frame_buffer()
    {
        var kernel = Hosts.NvidiaConsoleAfterVgaText();
        kernel.Read("/sys/class/vtconsole/vtcon0/name").ShouldBe("(M) dummy device");
        kernel.Write("/sys/class/vtconsole/vtcon1/bind", "0");
        kernel.Write("/sys/class/vtconsole/vtcon1/bind", "1");
        kernel.Read("/sys/class/vtconsole/vtcon1/bind").ShouldBe("0");

        kernel.Unload("nvidia_drm");
        kernel.Load("nvidia_drm");
        kernel.Read("/sys/class/vtconsole/vtcon1/bind").ShouldBe("1");
    }

    [Fact]
    public void A_console_that_does_not_follow_reports_success_all_the_same()
    {
        var kernel = Hosts.NvidiaConsole();
        kernel.MakeConsolesDeaf();
        kernel.Write("/sys/class/vtconsole/vtcon1/bind", "0");
        kernel.Read("/sys/class/vtconsole/vtcon1/bind").ShouldBe("1");
    }

    [Fact]
    public void A_reset_under_a_driver_happens_and_is_a_hazard()
    {
        var kernel = Hosts.SingleGpu();
        kernel.Write($"/sys/bus/pci/devices/{Gpu}/reset", "1");
        kernel.ResetLog.ShouldBe([$"{Gpu} flr"]);
        kernel.Hazards.ShouldNotBeEmpty();
    }

    [Fact]
    public void A_reset_of_a_lost_function_polls_for_a_minute_and_gives_up()
    {
        var kernel = Hosts.SingleGpu();
        kernel.UnloadNvidia();
        kernel.LoseDevice(At(Gpu));
        var reset = new SysPath($"/sys/bus/pci/devices/{Gpu}/reset");
        Silent(() => kernel.Write(reset.Text, "1"));
        var since = kernel.Uptime;
        Refused(() => kernel.Write(reset, "1", TimeSpan.FromSeconds(70))).ShouldBe(Errno.NotTypewriter);
        (kernel.Uptime - since).ShouldBeInRange(TimeSpan.FromSeconds(60), TimeSpan.FromSeconds(61));
    }

    [Fact]
    public void A_listed_bus_reset_is_refused_next_to_a_sibling()
    {
        var kernel = Hosts.AmdGpu();
        kernel.Unbind(Gpu);
        Refused(() => kernel.Write($"/sys/bus/pci/devices/{Gpu}/reset", "1")).ShouldBe(Errno.NotTypewriter);
        Refused(() => kernel.Write($"/sys/bus/pci/devices/{Audio}/reset", "1")).ShouldBe(Errno.NoEntry);
        Refused(() => kernel.Write($"/sys/bus/pci/devices/{Gpu}/reset", "yes")).ShouldBe(Errno.Invalid);
    }

    [Fact]
    public void The_bridge_resets_all_that_is_below_it_unless_a_lock_is_taken()
    {
        var kernel = Hosts.AmdGpu();
        kernel.Unbind(Gpu);
        kernel.Unbind(Audio);
        kernel.Write("/sys/bus/pci/devices/0000:00:01.0/reset_subordinate", "1");
        kernel.ResetLog.ShouldBe([$"{Gpu} subordinate", $"{Audio} subordinate"]);
        kernel.Hazards.ShouldBeEmpty();
        kernel.Faults.Silent(4);
        Silent(() => kernel.Bind("amdgpu", Gpu));
        Refused(() => kernel.Write("/sys/bus/pci/devices/0000:00:01.0/reset_subordinate", "1")).ShouldBe(Errno.TryAgain);
    }

    [Fact]
    public void The_reset_methods_can_be_chosen_among_those_there_are()
    {
        var kernel = Hosts.SingleGpu();
        var path = $"/sys/bus/pci/devices/{Gpu}/reset_method";
        kernel.Read(path).ShouldBe("flr bus");
        kernel.Write(path, "bus");
        kernel.Read(path).ShouldBe("bus");
        Refused(() => kernel.Write(path, "pm")).ShouldBe(Errno.Invalid);
        kernel.Write(path, "default");
        kernel.Read(path).ShouldBe("flr bus");
    }

    [Fact]
    public void An_idle_function_on_vfio_sleeps_where_it_may()
    {
        var kernel = Hosts.SingleGpu();
        kernel.UnloadNvidia();
        kernel.Write($"/sys/bus/pci/devices/{Gpu}/power/control", "auto");
        kernel.HandOver(Gpu);
        kernel.Read($"/sys/bus/pci/devices/{Gpu}/power_state").ShouldBe("D3hot");
        kernel.Write($"/sys/bus/pci/devices/{Gpu}/power/control", "on");
        kernel.Read($"/sys/bus/pci/devices/{Gpu}/power_state").ShouldBe("D0");
        kernel.Unbind(Gpu);
        kernel.Read($"/sys/bus/pci/devices/{Gpu}/power_state").ShouldBe("unknown");
    }

    [Fact]
    public void A_stuck_remove_holds_up_every_rescan()
    {
        var kernel = Hosts.SingleGpu();
        var user = kernel.StartProcess("ollama");
        kernel.OpenNode("/dev/nvidia0", user);
        Silent(() => kernel.Write($"/sys/bus/pci/devices/{Gpu}/remove", "1"));
        Silent(() => kernel.Write("/sys/bus/pci/rescan", "1"));
        kernel.EndProcess(user);
        kernel.Exists(new($"/sys/bus/pci/devices/{Gpu}")).ShouldBeFalse();
        kernel.Write("/sys/bus/pci/rescan", "1");
        kernel.DriverOf(Gpu).ShouldBe("nvidia");
    }
}
