using System.Diagnostics;
using System.Text.Json;

namespace GpuHandoff.Cli.Tests;

/// <summary>A recorded machine whose GPU has no driver and answers no more.</summary>
public sealed class LosingTheGpu : IDisposable
{
    readonly string _root = Directory.CreateTempSubdirectory("gpu-handoff-lost-").FullName;

    public LosingTheGpu()
    {
        var tree = Path.Combine(Tool.Repository, "tests", "machines", "rtx4090-single", "tree");
        using var copy = Process.Start("cp", ["-a", $"{tree}/.", _root]);
        copy.WaitForExit();
        var gpu = Path.Combine(_root, "sys", "devices", "pci0000:00", "0000:00:10.0", "0000:01:00.0");
        File.Delete(Path.Combine(gpu, "driver"));
        File.WriteAllBytes(Path.Combine(gpu, "config"), [0xff, 0xff, 0xff, 0xff]);
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Theory]
    [InlineData("to_vfio")]
    [InlineData("to_nvidia")]
    public void It_is_exit_code_4_in_words_and_as_data(string target)
    {
        var (exit, output, error) = Tool.Run("plan", target, "--root", _root);
        (exit, output).ShouldBe((4, ""), error);
        error.ShouldContain("is lost");
        error.ShouldContain("the vendor ID of 0000:01:00.0 reads ffff");
        error.ShouldContain("hint: switch the host off and on again");

        (exit, output, _) = Tool.Run("plan", target, "--json", "--root", _root);
        exit.ShouldBe(4);
        using var data = JsonDocument.Parse(output);
        data.RootElement.GetProperty("result").GetString().ShouldBe("stuck");
        data.RootElement.GetProperty("findings").EnumerateArray().Select(f => f.GetProperty("code").GetString()).ShouldContain("gpu-is-lost");
    }
}
