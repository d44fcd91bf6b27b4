using GpuHandoff.Kernel;
using GpuHandoff.Simulation;
using static GpuHandoff.Core.Tests.Simulation.Sysfs;

namespace GpuHandoff.Core.Tests.Simulation;

public class GuestTests
{
    static SimulatedKernel Lent()
    {
        var kernel = Hosts.SingleGpu();
        kernel.UnloadNvidia();
        kernel.HandOver(Gpu, Audio);
        return kernel;
    }

    [Fact]
    public void A_group_with_a_host_driver_in_it_is_not_viable()
    {
        var kernel = Hosts.SingleGpu();
        kernel.UnloadNvidia();
        kernel.HandOver(Gpu);
        Should.Throw<KernelRefused>(() => kernel.StartVm("111", [At(Gpu)])).Message.ShouldContain("group 11 is not viable");
    }

    [Fact]
    public void A_guest_holds_the_group_and_vfios_reference_count()
    {
        var kernel = Lent();
        var vm = kernel.StartVm("111", [At(Gpu), At(Audio)]);
        kernel.Read("/sys/module/vfio_pci/refcnt").ShouldBe("2");
        kernel.Read($"/proc/{vm.Process.Pid}/cgroup").ShouldBe("0::/qemu.slice/111.scope");
        kernel.List($"/proc/{vm.Process.Pid}/fd").Select(fd => kernel.Link($"/proc/{vm.Process.Pid}/fd/{fd}"))
            .ShouldContain("/dev/vfio/11");
        Should.Throw<KernelRefused>(() => kernel.StartVm("112", [At(Gpu)])).Errno.ShouldBe(Errno.Busy);
    }

    [Fact]
    public void An_unbind_from_vfio_waits_for_the_guest()
    {
        var kernel = Lent();
        var vm = kernel.StartVm("111", [At(Gpu), At(Audio)]);
        Silent(() => kernel.Unbind(Gpu));
        kernel.StopVm(vm);
        kernel.DriverOf(Gpu).ShouldBeNull();
    }

    [Fact]
    public void A_host_driver_may_not_join_a_guests_group()
    {
        var kernel = Lent();
        kernel.Unbind(Audio);
        kernel.StartVm("111", [At(Gpu)]);
        kernel.Override(Audio, null);
        Refused(() => kernel.Bind("snd_hda_intel", Audio)).ShouldBe(Errno.Busy);
    }

    [Fact]
    public void The_group_node_is_there_while_vfio_has_one_of_its_functions()
    {
        var kernel = Lent();
        kernel.NodeAt(new("/dev/vfio/11")).ShouldNotBeNull();
        kernel.Unbind(Gpu);
        kernel.NodeAt(new("/dev/vfio/11")).ShouldNotBeNull();
        kernel.Unbind(Audio);
        kernel.NodeAt(new("/dev/vfio/11")).ShouldBeNull();
    }

    [Fact]
    public void A_sound_card_with_a_listener_does_not_let_go()
    {
        var kernel = Hosts.SingleGpu();
        var listener = kernel.StartProcess("arecord");
        kernel.OpenNode("/dev/snd/pcmC0D3p", listener);
        Silent(() => kernel.Unbind(Audio));
        Refused(() => kernel.Unload("snd_hda_intel")).ShouldBe(Errno.TryAgain);
        kernel.EndProcess(listener);
        kernel.DriverOf(Audio).ShouldBeNull();
    }

    [Fact]
    public void A_containers_process_shows_its_own_path_and_the_same_numbers()
    {
        var kernel = Hosts.SingleGpu();
        var process = kernel.StartProcess("python3", "/lxc/107/ns/system.slice/jupyter.service");
        var file = kernel.OpenNode(kernel.NodeAt(new("/dev/nvidia0"))!, "/dev/gpu", process);
        var link = new SysPath($"/proc/{process.Pid}/fd/{file.Number}");
        kernel.Link(link).ShouldBe("/dev/gpu");
        kernel.NodeAt(link)!.Major.ShouldBe(195u);
        kernel.Device(Gpu).UsageCount.ShouldBe(1);
    }
}
