using System.Diagnostics;
using System.Text.Json;

namespace GpuHandoff.Cli.Tests;

/// <summary>The policy of a recorded machine, which is in the recording's etc.</summary>
public sealed class PolicyFilesOfAMachine : IDisposable
{
    const string Gpu = "0000:01:00.0";

    readonly string _root = Directory.CreateTempSubdirectory("gpu-handoff-policy-").FullName;

    public PolicyFilesOfAMachine()
    {
        // A copy, for the recording itself stays as it is; by cp, which takes links for links.
        var tree = Path.Combine(Tool.Repository, "tests", "machines", "rtx4090-single", "tree");
        using var copy = Process.Start("cp", ["-a", $"{tree}/.", _root]);
        copy.WaitForExit();
        copy.ExitCode.ShouldBe(0);
        Directory.CreateDirectory(Path.Combine(_root, "etc", "gpu-handoff.d"));
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);

    string Put(string text, string name = "gpu-handoff.yaml")
    {
        var file = Path.Combine(_root, "etc", name);
        File.WriteAllText(file, text);
        return file;
    }

    [Fact]
    public void What_the_files_say_is_shown_with_the_line_that_says_it()
    {
        var main = Put("claim: true\n");
        var more = Put("gpus:\n  01:00:\n    claim: false\n", "gpu-handoff.d/a.yaml");
        var (exit, output, error) = Tool.Run("policy", "show", "--root", _root);
        exit.ShouldBe(0, error);
        error.ShouldBeEmpty();
        output.ShouldMatch($@"(?m)^claim: true +# {main}:1$");
        output.ShouldMatch($@"(?m)^    claim: false +# {more}:3$");
        output.ShouldMatch("(?m)^free-by: auto +# default$");

        // What is shown is a policy file.
        Tool.Run("policy", "check", Put(output, "shown.yaml")).Exit.ShouldBe(0);

        output = Tool.Run("policy", "show", "--gpu", "0", "--root", _root).Out;
        output.ShouldContain($"\"{Gpu}\":");
        output.ShouldMatch("(?m)^    bar1-size: keep +# default$");
    }

    [Fact]
    public void As_data_each_key_has_its_value_and_its_origin()
    {
        var main = Put("wait: 5\ngpus:\n  0b:00: {claim: true}\n");
        var (exit, output, error) = Tool.Run("policy", "show", "--json", "--root", _root);
        exit.ShouldBe(0);
        using var json = JsonDocument.Parse(output);
        json.RootElement.GetProperty("policy").EnumerateArray().Select(v => v.ToString())
            .ShouldContain(v => v.Contains("\"wait\"") && v.Contains("\"5\"") && v.Contains($"{main}:1"));
        json.RootElement.GetProperty("notes")[0].GetString()!.ShouldContain("0b:00");
        error.ShouldContain("0b:00");
    }

    [Fact]
    public void A_plan_goes_by_the_files_and_the_command_line_goes_before_them()
    {
        Put("gpus:\n  01:00:\n    bar1-size: 1T\n");
        var (exit, _, error) = Tool.Run("plan", "to_vfio", "--root", _root);
        exit.ShouldBe(1);
        error.ShouldContain("cannot have a BAR 1 of 1T");
        Tool.Run("plan", "to_vfio", "--bar1-size", "2T", "--root", _root).Err.ShouldContain("cannot have a BAR 1 of 2T");
    }

    [Theory]
    [InlineData("plan", "to_vfio")]
    [InlineData("policy", "show")]
    public void A_mistake_in_a_file_refuses_with_all_mistakes_and_changes_nothing(params string[] command)
    {
        var file = Put("clam: true\nwait: soon\n");
        var (exit, output, error) = Tool.Run([.. command, "--root", _root]);
        exit.ShouldBe(1);
        output.ShouldBeEmpty();
        error.ShouldContain($"{file}:1:1: there is no key \"clam\"");
        error.ShouldContain("did you mean claim?");
        error.ShouldContain($"{file}:2:7: ");
        error.ShouldContain("nothing was changed");
        Tool.Run("status", "--root", _root).Exit.ShouldBe(0);
    }

    [Fact]
    public void A_mistake_in_a_file_does_not_keep_the_gpu_from_coming_home()
    {
        var file = Put("clam: true\n");
        var (exit, output, error) = Tool.Run("plan", "to_nvidia", "--root", _root);
        exit.ShouldBe(0);
        output.ShouldContain("nothing to do");
        error.ShouldContain($"warning: {file}:1:1: there is no key \"clam\"");
        error.ShouldContain("by the built-in policy");
    }

    [Fact]
    public void A_check_says_fine_or_all_that_is_wrong()
    {
        var (exit, output, error) = Tool.Run("policy", "check", Put("claim: true\n"));
        exit.ShouldBe(0);
        output.ShouldContain("is fine");
        (exit, output, error) = Tool.Run("policy", "check", Put("users: {nvidia: never}\nclaim: on\n"));
        exit.ShouldBe(1);
        output.ShouldBeEmpty();
        error.ShouldContain(":1:17: ");
        error.ShouldContain(":2:8: ");
        Tool.Run("policy", "check", "/nonexistent.yaml").Exit.ShouldBe(1);
        Tool.Run("policy", "check").Exit.ShouldBe(2);
        using var json = JsonDocument.Parse(Tool.Run("policy", "check", Put("claim: on\n"), "--json").Out);
        json.RootElement.GetProperty("findings").GetArrayLength().ShouldBe(1);
    }
}
