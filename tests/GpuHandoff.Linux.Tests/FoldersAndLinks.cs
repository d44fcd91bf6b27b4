using GpuHandoff.Kernel;

namespace GpuHandoff.Linux.Tests;

/// <summary>The doors through which a set-up goes, on real folders.</summary>
public sealed class FoldersAndLinks : IDisposable
{
    readonly TempFolder _folder = new();
    readonly Hand _hand = Hand.Start(Path.Combine(AppContext.BaseDirectory, "gpu-handoff"));
    readonly LinuxKernel _kernel;

    public FoldersAndLinks() => _kernel = new(_hand);

    public void Dispose()
    {
        _hand.Dispose();
        _folder.Dispose();
    }

    SysPath At(string name) => new(_folder[name]);

    [Fact]
    public void A_folder_is_made_for_all_to_read_and_goes_only_when_it_is_empty()
    {
        _kernel.MakeFolder(At("snippets"));
        var status = _kernel.StatusOf(At("snippets")).ShouldNotBeNull();
        (status.Kind, status.Mode).ShouldBe((FileKind.Folder, 0x1edu), "whatever our umask is");
        Should.Throw<KernelRefused>(() => _kernel.MakeFolder(At("snippets"))).Errno.ShouldBe(Errno.Exists);

        File.WriteAllText(_folder["snippets/mine.sh"], "");
        Should.Throw<KernelRefused>(() => _kernel.RemoveFolder(At("snippets"))).Errno.ShouldBe(Errno.NotEmpty);
        File.Delete(_folder["snippets/mine.sh"]);
        _kernel.RemoveFolder(At("snippets"));
        _kernel.RemoveFolder(At("snippets"));
        _kernel.StatusOf(At("snippets")).ShouldBeNull();
    }

    [Fact]
    public void A_link_takes_the_place_of_a_link_and_of_nothing_else()
    {
        _kernel.MakeLink(At("hook"), "/usr/sbin/gpu-handoff");
        _kernel.Link(At("hook")).ShouldBe("/usr/sbin/gpu-handoff");
        _kernel.StatusOf(At("hook"))!.Kind.ShouldBe(FileKind.Link);
        // What a run that was killed between its two calls left.
        File.CreateSymbolicLink(_folder["hook.new"], "/nowhere");
        _kernel.MakeLink(At("hook"), "/usr/local/sbin/gpu-handoff");
        _kernel.Link(At("hook")).ShouldBe("/usr/local/sbin/gpu-handoff");
        _kernel.Exists(At("hook.new")).ShouldBeFalse();

        File.WriteAllText(_folder["file"], "mine");
        Should.Throw<KernelRefused>(() => _kernel.MakeLink(At("file"), "/x")).Errno.ShouldBe(Errno.Exists);
        Should.Throw<KernelRefused>(() => _kernel.RemoveLink(At("file")));
        File.ReadAllText(_folder["file"]).ShouldBe("mine");

        _kernel.RemoveLink(At("hook"));
        _kernel.RemoveLink(At("hook"));
        _kernel.Exists(At("hook")).ShouldBeFalse();
    }

    [Fact]
    public void A_run_that_only_looks_makes_none_of_it()
    {
        var looking = new LinuxKernel(hand: null);
        Action[] changes =
        [
            () => looking.MakeFolder(At("a")), () => looking.RemoveFolder(At("a")), () => looking.MakeLink(At("a"), "b"),
        ];
        foreach (var change in changes)
            Should.Throw<KernelRefused>(change).Errno.ShouldBe(Errno.ReadOnly);
        looking.Exists(At("a")).ShouldBeFalse();
    }

    [Fact]
    public void Who_may_write_a_file_is_told()
    {
        File.WriteAllText(_folder["program"], "");
        File.SetUnixFileMode(_folder["program"], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        _kernel.StatusOf(At("program"))!.IsRunnable().ShouldBeTrue();
        File.SetUnixFileMode(_folder["program"], UnixFileMode.UserRead | UnixFileMode.GroupWrite);
        var status = _kernel.StatusOf(At("program"))!;
        status.IsRunnable().ShouldBeFalse();
        status.WhyNotTrusted().ShouldNotBeNull();
        (status with { Owner = 0, Mode = 0x1ed }).WhyNotTrusted().ShouldBeNull();
    }
}
