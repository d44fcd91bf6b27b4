using GpuHandoff.Runs;

namespace GpuHandoff.Linux.Tests;

public sealed class FileAttachmentsTests : IDisposable
{
    readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    FileAttachments Records() => new(_folder["state"]);

    [Fact]
    public void What_was_given_is_read_back_as_it_was()
    {
        Records().All().ShouldBeEmpty();
        Records().Keep(new(101, [new("hostpci0", null, "0000:05:00,pcie=1"), new("hookscript", null, "local:snippets/gpu-handoff")])
        {
            Folders = ["/var/lib/vz/snippets"],
            Link = "/var/lib/vz/snippets/gpu-handoff",
        });
        Records().Keep(new(102, [new("hostpci1", "0000:06:00", "0000:05:00")]));

        var (first, second) = (Records().All()[0], Records().All()[1]);
        first.Settings.ShouldBe([new("hostpci0", null, "0000:05:00,pcie=1"), new("hookscript", null, "local:snippets/gpu-handoff")]);
        first.Folders.ShouldBe(["/var/lib/vz/snippets"]);
        first.Link.ShouldBe("/var/lib/vz/snippets/gpu-handoff");
        second.Settings.ShouldBe([new("hostpci1", "0000:06:00", "0000:05:00")]);
        second.Link.ShouldBeNull();

        Records().Forget(101);
        Records().Forget(101);
        Records().All().ShouldHaveSingleItem().Vm.ShouldBe(102);
    }

    [Theory]
    [InlineData("")]
    [InlineData("null")]
    [InlineData("{}")]
    [InlineData("""{"vm":101,"settings":[],"version":2}""")]
    [InlineData("""{"vm":101,"settings":null}""")]
    [InlineData("\0\0\0\0")]
    public void A_record_that_is_damaged_is_told_with_its_path_and_what_to_do(string text)
    {
        Records().Keep(new(101, []));
        File.WriteAllText(_folder["state/attach-101.json"], text);
        var refused = Should.Throw<LedgerRefused>(() => Records().All());
        refused.Message.ShouldContain("attach-101.json, line 1");
        refused.Hint.ShouldContain("sudo rm");
    }

    // The format of today, as it lies on disks from now on.
    [Fact]
    public void A_record_of_the_first_version_is_read()
    {
        Records().Keep(new(101, []));
        File.WriteAllText(_folder["state/attach-101.json"], """
            {"vm":101,"settings":[{"key":"hostpci0","from":null,"to":"0000:05:00,pcie=1"}],"version":1,
             "folders":["/var/lib/vz/snippets"],"link":"/var/lib/vz/snippets/gpu-handoff"}
            """);
        Records().All().ShouldHaveSingleItem().Settings.ShouldBe([new("hostpci0", null, "0000:05:00,pcie=1")]);
    }
}
