using GpuHandoff.Machines;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Survey;

/// <summary>A card on nouveau: its DisplayPort has an i2c adapter of its own, below the connector.</summary>
public sealed class ReadingAttachments : IDisposable
{
    readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("attachments");

    public void Dispose() => _root.Delete(recursive: true);

    PciFunction Nouveau()
    {
        const string function = "sys/bus/pci/devices/0000:01:00.0";
        Put($"{function}/class", "0x030000");
        Put($"{function}/vendor", "0x10de");
        Put($"{function}/device", "0x2684");
        foreach (var folder in (string[])["drm/card0/card0-DP-1/i2c-5", "drm/card0/card0-DP-1/power", "drm/renderD128", "graphics/fb0", "i2c-3", "usbmon"])
            Directory.CreateDirectory(Path.Combine(_root.FullName, function, folder));
        Directory.CreateDirectory(Path.Combine(_root.FullName, "sys/bus/pci/drivers/nouveau"));
        File.CreateSymbolicLink(Path.Combine(_root.FullName, function, "driver"), "../../../pci/drivers/nouveau");
        Put("RECORD/dev-nodes.txt", string.Join('\n',
            "0o20660 226:0 /dev/dri/card0", "0o20660 226:128 /dev/dri/renderD128", "0o20660 29:0 /dev/fb0", "0o20660 89:3 /dev/i2c-3", "0o20660 89:5 /dev/i2c-5"));
        return Surveyor.Survey(new RecordedTree(_root.FullName), [], target: null).Gpus.ShouldHaveSingleItem().Display();
    }

    void Put(string path, string text)
    {
        var file = Path.Combine(_root.FullName, path);
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllText(file, text + "\n");
    }

    [Fact]
    public void The_adapters_of_connectors_are_nodes_of_their_card()
    {
        var function = Nouveau();
        function.Owner.Driver.ShouldBe("nouveau");
        function.Nodes.Select(n => n.Path).ShouldBe(
            ["/dev/dri/card0", "/dev/dri/renderD128", "/dev/i2c-5", "/dev/fb0", "/dev/i2c-3"], ignoreOrder: true);
    }

    [Theory]
    [InlineData(0, false)]
    [InlineData(1, true)]
    public void A_look_for_their_users_is_due_where_i2c_dev_counts_one(int users, bool due)
    {
        Holders.AreDue(new("", "") { Gpus = [Card()], Modules = [Counted("nouveau", 0), Counted("i2c_dev", users)] }).ShouldBe(due);
    }

    [Fact]
    public void Where_nothing_counts_the_adapters_a_look_is_due() =>
        Holders.AreDue(new("", "") { Gpus = [Card()], Modules = [Counted("nouveau", 0)] }).ShouldBeTrue();

    Gpu Card()
    {
        var function = Nouveau();
        return new(function.Address, [function], []);
    }

    static KernelModule Counted(string name, int users) => new(name, ModuleState.Loaded, users, []);
}
