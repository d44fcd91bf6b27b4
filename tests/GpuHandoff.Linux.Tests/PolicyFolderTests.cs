using GpuHandoff.Goals;

namespace GpuHandoff.Linux.Tests;

/// <summary>Whose words count, and what is no file of words at all.</summary>
public sealed class PolicyFolderTests : IDisposable
{
    const UnixFileMode Fine = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead;

    static readonly uint _us = uint.Parse(File.ReadLines("/proc/self/status").First(l => l.StartsWith("Uid:", StringComparison.Ordinal)).Split('\t')[1]);

    readonly TempFolder _folder = new();

    string Main => _folder[PolicyFolder.Main];

    PolicyFolder Folder => new(_folder.Path, _us);

    public PolicyFolderTests() => Directory.CreateDirectory(_folder[PolicyFolder.DropIns]);

    public void Dispose() => _folder.Dispose();

    static string Put(string file, string text = "claim: true\n", UnixFileMode mode = Fine)
    {
        File.WriteAllText(file, text);
        File.SetUnixFileMode(file, mode);
        return file;
    }

    string DropIn(string name) => Path.Combine(_folder[PolicyFolder.DropIns], name);

    PolicyError Error() => Folder.Read().Errors.ShouldHaveSingleItem();

    [Fact]
    public void Without_a_file_the_defaults_hold()
    {
        var (said, errors, ignored) = Folder.Read();
        (errors.Length, ignored.Length).ShouldBe((0, 0));
        said.Everywhere().ShouldBe(Policy.Default);
        new PolicyFolder(_folder["nowhere"], _us).Read().Errors.ShouldBeEmpty();
    }

    [Fact]
    public void Drop_ins_come_after_the_file_in_the_order_of_their_names_and_other_names_do_not_count()
    {
        Put(Main, "wait: 1\nlimits: {total: 100}\n");
        Put(DropIn("20-b.yaml"), "wait: 3\n");
        Put(DropIn("10-a.yaml"), "wait: 2\nclaim: true\n");
        Put(DropIn(".30-c.yaml"), "wait: 4\n");
        Put(DropIn("40-d.yaml~"), "wait: 5\n");
        Put(DropIn("50-e.yml"), "wait: 6\n");
        var (said, errors, ignored) = Folder.Read();
        errors.ShouldBeEmpty();
        var policy = said.Everywhere();
        (policy.Patience, policy.Claim, policy.Limits.Total).ShouldBe((TimeSpan.FromSeconds(3), true, TimeSpan.FromSeconds(100)));
        said.Files.Last(s => s.Key == "wait").From.ToString().ShouldBe($"{DropIn("20-b.yaml")}:1");
        ignored.ShouldHaveSingleItem().ShouldContain("50-e.yml");
    }

    [Theory]
    [InlineData(UnixFileMode.GroupWrite, "0664")]
    [InlineData(UnixFileMode.OtherWrite, "0646")]
    [InlineData(UnixFileMode.GroupWrite | UnixFileMode.OtherWrite, "0666")]
    public void A_file_that_others_may_write_is_an_error_with_its_mode_and_the_way_out(UnixFileMode more, string mode)
    {
        Put(Main, mode: Fine | more);
        var error = Error();
        error.File.ShouldBe(Main);
        error.What.ShouldContain($"mode {mode}");
        error.Hint.ShouldContain($"chmod go-w {Main}");
        Folder.Read().Said.Files.ShouldBeEmpty();
    }

    [Fact]
    public void A_drop_in_that_others_may_write_is_an_error_too()
    {
        Put(Main);
        Put(DropIn("a.yaml"), mode: Fine | UnixFileMode.OtherWrite);
        Error().File.ShouldBe(DropIn("a.yaml"));
    }

    [Fact]
    public void A_folder_in_which_others_may_put_files_is_an_error()
    {
        Put(DropIn("a.yaml"));
        File.SetUnixFileMode(_folder[PolicyFolder.DropIns], (UnixFileMode)0b111_111_111);
        Error().ToString().ShouldStartWith($"{_folder[PolicyFolder.DropIns]}: others than its owner may write it (mode 0777)");
    }

    [Fact]
    public void Where_others_may_put_another_file_in_its_place_a_file_does_not_count()
    {
        Put(Main);
        File.SetUnixFileMode(_folder.Path, (UnixFileMode)0b111_111_111);
        Error().File.ShouldBe(_folder.Path);
    }

    [Fact]
    public void A_file_of_another_user_is_an_error()
    {
        Put(Main);
        var error = new PolicyFolder(_folder.Path, _us + 1).Read().Errors[0];
        error.What.ShouldContain($"belongs to user {_us}");
        error.Hint.ShouldContain("chown root:root");
        // A recorded machine's files belong to whoever recorded it.
        new PolicyFolder(_folder.Path, owner: null).Read().Said.Everywhere().Claim.ShouldBeTrue();
    }

    [Fact]
    public void A_link_is_an_error_wherever_it_leads()
    {
        File.CreateSymbolicLink(Main, Put(_folder["else.yaml"]));
        Error().What.ShouldContain("link");
        File.Delete(Main);
        Directory.Delete(_folder[PolicyFolder.DropIns]);
        Directory.CreateSymbolicLink(_folder[PolicyFolder.DropIns], Directory.CreateDirectory(_folder["else.d"]).FullName);
        Error().What.ShouldContain("no folder");
    }

    [Fact]
    public void A_pipe_a_device_or_a_folder_in_the_place_of_the_file_is_an_error_and_nobody_waits()
    {
        Directory.CreateDirectory(Main);
        Error().What.ShouldContain("no file");
        PolicyFolder.Check("/dev/zero").ShouldHaveSingleItem().What.ShouldContain("no file");
    }

    [Fact]
    public void A_huge_file_is_an_error()
    {
        Put(Main, new string('#', PolicyFiles.Longest + 1));
        Error().What.ShouldContain("256 KiB");
    }

    [Fact]
    public void A_check_takes_any_file_and_tells_what_it_would_need_to_count()
    {
        var file = Put(_folder["mine.yaml"], "clam: true\n", Fine | UnixFileMode.GroupWrite);
        PolicyFolder.Check(file).ShouldHaveSingleItem().Line.ShouldBe(1);
        PolicyFolder.NotYetTrusted(file).ShouldNotBeNull();
        PolicyFolder.Check(_folder["none.yaml"]).ShouldHaveSingleItem().What.ShouldContain("no such file");
    }
}
