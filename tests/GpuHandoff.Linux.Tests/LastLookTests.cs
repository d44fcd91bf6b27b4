using GpuHandoff.Kernel;

namespace GpuHandoff.Linux.Tests;

/// <summary>A write that is made only where a last look allows it, by the helper process and in one request.</summary>
public sealed class LastLookTests : IDisposable
{
    static readonly TimeSpan _plenty = TimeSpan.FromSeconds(30);

    readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory();
    readonly Hand _hand = Hand.Start(Path.Combine(AppContext.BaseDirectory, "gpu-handoff"));

    string At(string name) => Path.Combine(_folder.FullName, name);

    public void Dispose()
    {
        _hand.Dispose();
        _folder.Delete(recursive: true);
    }

    [Fact]
    public void A_write_is_made_while_the_folder_is_empty_and_not_made_when_it_has_an_entry()
    {
        var (kernel, file) = (new LinuxKernel(_hand), At("unbind"));
        File.WriteAllText(file, "");
        var interrupts = Directory.CreateDirectory(At("msi_irqs")).FullName;
        var look = new LastLook(new(interrupts), []);

        kernel.Write(new(file), "one", _plenty, look);
        File.ReadAllText(file).ShouldBe("one");

        File.WriteAllText(Path.Combine(interrupts, "130"), "msi");
        var refused = Should.Throw<StillInUse>(() => kernel.Write(new(file), "two", _plenty, look));
        refused.Errno.ShouldBe(Errno.Busy);
        refused.Reason.ShouldContain("1 entries");
        File.ReadAllText(file).ShouldBe("one", "nothing was written");
        kernel.Write(new(file), "two", _plenty);
        File.ReadAllText(file).ShouldBe("two");
    }

    [Fact]
    public void A_folder_that_is_not_there_and_a_module_that_is_not_loaded_hinder_nothing()
    {
        var (kernel, file) = (new LinuxKernel(_hand), At("unbind"));
        File.WriteAllText(file, "");
        kernel.Write(new(file), "one", _plenty, new(new(At("nosuch")), [new("no_such_module", 0)]));
        File.ReadAllText(file).ShouldBe("one");
    }

    [Theory]
    [InlineData("x")]
    [InlineData("=3")]
    [InlineData("nvidia=many")]
    public void A_request_that_is_none_writes_nothing(string count)
    {
        var file = At("unbind");
        File.WriteAllText(file, "");
        RiskyCalls.Write(file, "one", "", [count]).Errno.ShouldBe(Errno.Invalid);
        File.ReadAllText(file).ShouldBe("");
    }
}
