namespace GpuHandoff.Linux.Tests;

public sealed class LinuxKernelTests : IDisposable
{
    readonly TempFolder _folder = new();
    readonly LinuxKernel _kernel = new(hand: null);

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Text_is_read_without_its_last_newline()
    {
        File.WriteAllText(_folder["vendor"], "0x10de\n");
        _kernel.Read(new(_folder["vendor"])).ShouldBe("0x10de");
    }

    [Fact]
    public void A_long_file_is_read_whole()
    {
        var text = string.Join('\n', Enumerable.Range(0, 20_000));
        File.WriteAllText(_folder["modules"], text);
        _kernel.Read(new(_folder["modules"])).ShouldBe(text);
    }

    [Fact]
    public void What_is_not_there_is_null_or_empty_and_no_error()
    {
        _kernel.Read(new(_folder["nosuch"])).ShouldBeNull();
        _kernel.Read(new(_folder["nosuch/below"])).ShouldBeNull();
        _kernel.List(new(_folder["nosuch"])).ShouldBeEmpty();
        _kernel.Link(new(_folder["nosuch"])).ShouldBeNull();
        _kernel.Exists(new(_folder["nosuch"])).ShouldBeFalse();
        _kernel.NodeAt(new(_folder["nosuch"])).ShouldBeNull();
    }

    [Fact]
    public void A_folder_is_no_text() => _kernel.Read(new(_folder.Path)).ShouldBeNull();

    [Fact]
    public void Names_are_listed_in_order_and_a_links_target_is_told_as_written()
    {
        File.CreateSymbolicLink(_folder["driver"], "../../bus/pci/drivers/nvidia");
        File.WriteAllText(_folder["b"], "");
        File.WriteAllText(_folder["a"], "");
        _kernel.List(new(_folder.Path)).ShouldBe(["a", "b", "driver"]);
        _kernel.Link(new(_folder["driver"])).ShouldBe("../../bus/pci/drivers/nvidia");
        _kernel.Exists(new(_folder["driver"])).ShouldBeTrue("a link that leads nowhere is there all the same");
    }

    [Fact]
    public void A_character_device_has_its_numbers_and_a_file_has_none()
    {
        var node = _kernel.NodeAt(new("/dev/null")).ShouldNotBeNull();
        (node.Major, node.Minor).ShouldBe((1u, 3u));
        File.WriteAllText(_folder["file"], "");
        _kernel.NodeAt(new(_folder["file"])).ShouldBeNull();
    }

    [Fact]
    public void Uptime_goes_on()
    {
        var before = _kernel.Uptime;
        _kernel.Pause(TimeSpan.FromMilliseconds(5));
        _kernel.Uptime.ShouldBeGreaterThan(before);
    }
}
