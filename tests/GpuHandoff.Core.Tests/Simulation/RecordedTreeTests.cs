using GpuHandoff.Kernel;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Simulation;

public sealed class RecordedTreeTests : IDisposable
{
    readonly DirectoryInfo outside = Directory.CreateTempSubdirectory("recorded");
    readonly string root;

    public RecordedTreeTests()
    {
        File.WriteAllText(Path.Combine(outside.FullName, "secret"), "not part of the recording");
        root = Path.Combine(outside.FullName, "machine");
        Put("sys/devices/pci0000:00/0000:00:06.0/vendor", "0x10de\n");
        Put("sys/devices/pci0000:00/0000:00:06.0/config.present", "");
        Put("proc/modules", "nvidia_uvm 1830912 - - Live 0xffffffffc080c000 (O)\nnvidia 14299136 - - Live 0x0 (O)\n");
        Put("lib/modules/6.12/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko.zst: kernel/drivers/vfio/vfio.ko.zst\n");
        Put("RECORD/dev-nodes.txt", "0o40755 0:0 /dev/nvidia-caps\n0o20444 241:2 /dev/nvidia-caps/nvidia-cap2\n0o20666 195:0 /dev/nvidia0\n");
        LinkTo("sys/bus/pci/devices/0000:00:06.0", "../../../devices/pci0000:00/0000:00:06.0");
        LinkTo("sys/up", "../../secret");
        LinkTo("sys/absolute", Path.Combine(outside.FullName, "secret"));
        LinkTo("sys/inside", "/proc/modules");
        LinkTo("sys/loop", "loop");
        LinkTo("proc/4211/fd/5", "/dev/nvidia0");
    }

    RecordedTree Machine => new(root);

    [Fact]
    public void A_recording_is_read_through_its_links()
    {
        Machine.Read("/sys/bus/pci/devices/0000:00:06.0/vendor").ShouldBe("0x10de");
        Machine.List("/sys/bus/pci/devices").ShouldBe(["0000:00:06.0"]);
        Machine.Link("/sys/bus/pci/devices/0000:00:06.0").ShouldBe("../../../devices/pci0000:00/0000:00:06.0");
        Machine.Read("/sys/inside")!.ShouldStartWith("nvidia_uvm");
    }

    [Theory]
    [InlineData("/sys/up")]
    [InlineData("/sys/absolute")]
    [InlineData("/sys/loop")]
    [InlineData("/../secret")]
    [InlineData("/sys/../../secret")]
    public void No_path_and_no_link_leaves_the_recording(string path) => Machine.Read(path).ShouldBeNull();

    [Fact]
    public void A_file_whose_content_was_not_recorded_is_there_and_reads_as_nothing()
    {
        Machine.List("/sys/devices/pci0000:00/0000:00:06.0").ShouldBe(["config", "vendor"]);
        Machine.Exists(new("/sys/bus/pci/devices/0000:00:06.0/config")).ShouldBeTrue();
        Machine.Read("/sys/bus/pci/devices/0000:00:06.0/config").ShouldBeNull();
    }

    [Fact]
    public void Recorded_nodes_are_found_by_path_and_through_a_process()
    {
        Machine.NodeAt(new("/dev/nvidia0")).ShouldBe(new(195, 0, 0x1b6, 0, 0));
        Machine.NodeAt(new("/proc/4211/fd/5")).ShouldBe(new(195, 0, 0x1b6, 0, 0));
        Machine.NodeAt(new("/dev/nvidia-caps/nvidia-cap2"))!.Minor.ShouldBe(2u);
        Machine.NodeAt(new("/dev/nvidia-caps")).ShouldBeNull();
    }

    [Fact]
    public void What_was_loaded_or_lies_in_lib_modules_can_be_loaded()
    {
        Machine.CanLoad("nvidia-uvm").ShouldBeTrue();
        Machine.CanLoad("vfio_pci").ShouldBeTrue();
        Machine.CanLoad("nouveau").ShouldBeFalse();
    }

    [Fact]
    public void A_recording_cannot_be_changed()
    {
        var second = TimeSpan.FromSeconds(1);
        Action[] changes =
        [
            () => Machine.Write(new("/sys/bus/pci/rescan"), "1", second),
            () => Machine.LoadModule("nvidia", [], second),
            () => Machine.UnloadModule("nvidia", second),
            () => Machine.MakeNode(new("/dev/nvidia0"), new(195, 0, 0x1b6, 0, 0)),
            () => Machine.RemoveNode(new("/dev/nvidia0")),
        ];
        foreach (var change in changes)
        {
            var refused = Should.Throw<KernelRefused>(change);
            refused.Errno.ShouldBe(Errno.ReadOnly);
            refused.Reason.ShouldBe("a recorded machine cannot be changed");
        }
    }

    public void Dispose() => outside.Delete(recursive: true);

    void Put(string path, string text)
    {
        var file = Path.Combine(root, path);
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllText(file, text);
    }

    void LinkTo(string path, string target)
    {
        var link = Path.Combine(root, path);
        Directory.CreateDirectory(Path.GetDirectoryName(link)!);
        File.CreateSymbolicLink(link, target);
    }
}
