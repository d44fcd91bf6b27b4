using System.Diagnostics;
using System.Text.Json;

namespace GpuHandoff.Cli.Tests;

/// <summary>The hook of Proxmox on the command line: its words, and its look at a recorded machine's VMs.</summary>
public sealed class HookOfAMachine : IDisposable
{
    readonly string _root = Directory.CreateTempSubdirectory("gpu-handoff-hook-").FullName;

    public HookOfAMachine()
    {
        var tree = Path.Combine(Tool.Repository, "tests", "machines", "rtx4090-single", "tree");
        using var copy = Process.Start("cp", ["-a", $"{tree}/.", _root]);
        copy.WaitForExit();
        copy.ExitCode.ShouldBe(0);
        Directory.CreateDirectory(Path.Combine(_root, "etc", "pve", "qemu-server"));
        Directory.CreateDirectory(Path.Combine(_root, "etc", "pve", "lxc"));
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);

    (int Exit, string Out, string Err) Look(string phase, params string[] lines)
    {
        File.WriteAllLines(Path.Combine(_root, "etc", "pve", "qemu-server", "101.conf"), lines);
        return Tool.Run("hook", "101", phase, "--dry-run", "--root", _root);
    }

    // Case 61.
    [Fact]
    public void What_a_start_would_do_is_told_as_a_plan_and_nothing_is_written()
    {
        var (exit, output, error) = Look("pre-start", "name: games", "hostpci0: 0000:01:00,pcie=1");
        exit.ShouldBe(0, error);
        output.ShouldStartWith("plan: hand 0000:01:00");
        output.ShouldContain("→ vfio-pci");
        Directory.GetFiles(Path.Combine(_root, "etc"), "*", SearchOption.AllDirectories).ShouldHaveSingleItem();

        var (_, json, _) = Tool.Run("hook", "101", "pre-start", "-n", "--json", "--root", _root);
        using var data = JsonDocument.Parse(json);
        data.RootElement.GetProperty("result").GetString().ShouldBe("planned");
    }

    [Fact]
    public void A_start_that_would_be_refused_is_exit_code_1_with_the_reason()
    {
        var (exit, output, error) = Look("pre-start", "name: games", "hostpci0: 0000:09:00");
        (exit, output).ShouldBe((1, ""), error);
        error.ShouldContain("[gpu-handoff] VM 101 (games) cannot start");
        error.ShouldContain("hostpci0: no PCI device found for \"0000:09:00\"");
        error.ShouldContain("nothing was changed");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_name_that_is_a_terminals_command_is_shown_and_not_obeyed(bool json)
    {
        File.WriteAllLines(Path.Combine(_root, "etc", "pve", "qemu-server", "101.conf"), ["name: \e]0;mine\a\u202e\u009b2J", "hostpci0: 0000:09:00"]);
        var (exit, output, error) = Tool.Run(["hook", "101", "pre-start", "-n", "--root", _root, .. json ? ["--json"] : Array.Empty<string>()]);
        exit.ShouldBe(1);
        (output + error).ShouldAllBe(c => c == '\n' || (!char.IsControl(c) && c != '\u202e'));
        (output + error).ShouldContain(json ? @"\u001B]0;mine\u0007" : @"VM 101 (\x1b]0;mine\x07\u202e\x9b2J)");
    }

    [Theory]
    [InlineData("pre-start", "cores: 2")]
    [InlineData("pre-start", "template: 1", "hostpci0: 0000:01:00")]
    [InlineData("pre-stop", "hostpci0: 0000:01:00")]
    [InlineData("post-stop", "hostpci0: 0000:01:00")]
    public void Where_there_is_nothing_to_do_that_is_said(string phase, params string[] lines)
    {
        var (exit, output, error) = Look(phase, lines);
        (exit, output).ShouldBe((0, "[gpu-handoff] nothing to do: no GPU of this host is concerned\n"), error);
    }

    [Fact]
    public void A_backup_goes_by_the_policy_of_the_VM()
    {
        File.WriteAllText(Path.Combine(_root, "etc", "gpu-handoff.yaml"), "vms:\n  101:\n    backup: refuse\n");
        var (exit, _, error) = Look("pre-start", "hostpci0: 0000:01:00", "lock: backup");
        exit.ShouldBe(1);
        error.ShouldContain("is started for its backup, and the policy hands no GPU over for that");
        Look("pre-start", "hostpci0: 0000:01:00").Exit.ShouldBe(0);
    }

    [Theory]
    [InlineData("prestart", "did you mean pre-start?")]
    [InlineData("post_stop", "did you mean post-stop?")]
    [InlineData("begin", "--help")]
    public void A_word_that_is_no_phase_is_exit_code_2(string word, string hint)
    {
        foreach (var arguments in new string[][] { ["hook", "101", word], ["101", word] })
        {
            var (exit, output, error) = Tool.Run(arguments);
            (exit, output).ShouldBe((2, ""));
            error.ShouldContain($"\"{word}\" is no phase of a hook: pre-start, post-start, pre-stop, post-stop");
            error.ShouldContain(hint);
        }
    }

    [Theory]
    [InlineData("99")]
    [InlineData("0101")]
    [InlineData("1234567890")]
    [InlineData("web")]
    public void What_is_no_number_of_a_VM_is_exit_code_2(string vm)
    {
        var (exit, output, error) = Tool.Run("hook", vm, "pre-start");
        (exit, output).ShouldBe((2, ""));
        error.ShouldContain($"\"{vm}\" is no number of a VM");
    }

    [Theory]
    [InlineData("hook", "101")]
    [InlineData("hook", "101", "pre-start", "extra")]
    [InlineData("hook", "101", "pre-start", "--root", "/")]
    [InlineData("hook", "101", "pre-start", "--json")]
    public void A_wrong_command_line_is_exit_code_2(params string[] arguments) => Tool.Run(arguments).Exit.ShouldBe(2);

    [Fact]
    public void A_phase_of_a_later_Proxmox_is_told_and_fails_nothing()
    {
        var (exit, output, error) = Tool.Run("999999", "pre-migrate");
        (exit, output).ShouldBe((0, ""), error);
        error.ShouldBe("[gpu-handoff] the phase pre-migrate is not known here: nothing to do\n");
    }

    // As Proxmox calls it: through a link of any name, without a PATH to speak of, stdin closed, in any folder.
    [Fact]
    public void Through_a_link_it_is_the_hookscript()
    {
        var link = Path.Combine(_root, "gpu-handoff-snippet");
        File.CreateSymbolicLink(link, Path.Combine(AppContext.BaseDirectory, "gpu-handoff"));
        foreach (var phase in (string[])["pre-stop", "post-stop", "post-start"])
        {
            var start = new ProcessStartInfo(link, ["999999999", phase])
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
                WorkingDirectory = "/",
            };
            var dotnet = Environment.GetEnvironmentVariable("DOTNET_ROOT");
            start.Environment.Clear();
            (start.Environment["PATH"], start.Environment["LC_ALL"], start.Environment["PVE_MIGRATED_FROM"]) = ("/sbin:/bin:/usr/sbin:/usr/bin", "C", "");
            // The tests run it on an installed runtime, which a native binary does not need.
            if (dotnet is not null)
                start.Environment["DOTNET_ROOT"] = dotnet;
            using var process = Process.Start(start)!;
            process.StandardInput.Close();
            var said = process.StandardOutput.ReadToEnd() + process.StandardError.ReadToEnd();
            process.WaitForExit();
            (process.ExitCode, said).ShouldBe((0, ""), phase);
        }
    }
}
