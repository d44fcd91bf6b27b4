using System.Text.Json;
using GpuHandoff.Guests;
using GpuHandoff.Linux;

namespace GpuHandoff.Cli.Tests;

public class CommandLine
{
    static readonly string _machine = Path.Combine(Tool.Repository, "tests", "machines", "rtx4090-single", "tree");
    static readonly string _two = Path.Combine(Tool.Repository, "tests", "machines", "rtx4090-two-cards", "tree");

    [Fact]
    public void The_demo_hands_over_and_back_and_shows_a_failure_rolled_back()
    {
        var (exit, output, error) = Tool.Run("demo");
        exit.ShouldBe(0, output + error);
        error.ShouldBeEmpty();
        output.ShouldContain("[gpu-handoff] 0000:01:00.0 driver=vfio-pci");
        output.ShouldContain("nothing to do");
        output.ShouldContain("undo: ");
        output.ShouldContain("as they were before");
    }

    // The wrong word keeps it from beginning to watch: only what is wrong is told.
    [Theory]
    [InlineData(VmManager.Proxmox, "101")]
    [InlineData(VmManager.Libvirt, "win11")]
    [InlineData(VmManager.Libvirt, "101")]
    [InlineData(VmManager.Libvirt, "a:b=c $1 ${HOME} --wrong")]
    [InlineData(VmManager.Libvirt, "@answers")]
    public void What_a_hook_passes_to_its_watch_is_what_the_command_line_takes(VmManager manager, string id)
    {
        var guest = new Guest(manager, id);
        var words = Watchdog.Arguments(guest);

        var (exit, _, error) = Tool.Run([.. words, "--wrong-besides"]);

        (exit, error).ShouldBe((2, "[gpu-handoff] Unrecognized command or argument '--wrong-besides'.\n[gpu-handoff] hint: gpu-handoff --help\n"));
        words[0].ShouldBe("reconcile");
        Guest.Of(words[1][(words[1].IndexOf('=', StringComparison.Ordinal) + 1)..]).ShouldBe(guest);
        Tool.Run("reconcile", $"--watch={id}", "--wrong-besides").Err.ShouldContain("is no VM: it is named with its manager");
    }

    [Theory]
    [InlineData("nosuch")]
    [InlineData("handoff")]
    [InlineData("handoff", "amd")]
    [InlineData("plan")]
    [InlineData("plan", "sideways")]
    [InlineData("to_vfio", "--policy", "force")]
    [InlineData("to_vfio", "--timeout", "soon")]
    [InlineData("to_vfio", "--timeout", "-1")]
    [InlineData("to_vfio", "--accept-neighbour", "05:00")]
    [InlineData("to_vfio", "--bar1-size", "3G")]
    [InlineData("to_vfio", "--bar1-size", "256")]
    [InlineData("to_vfio", "--bar1-size", "M")]
    [InlineData("plan", "to_vfio", "--bar1-size", "99999999999T")]
    [InlineData("to_vfio", "--root", "/")]
    [InlineData("to_nvidia", "--stop-users")]
    [InlineData("status", "--root", "/nonexistent")]
    [InlineData("status", "extra")]
    public void A_wrong_command_line_is_exit_code_2_with_a_hint_and_nothing_on_stdout(params string[] arguments)
    {
        var (exit, output, error) = Tool.Run(arguments);
        exit.ShouldBe(2);
        output.ShouldBeEmpty();
        error.ShouldContain("[gpu-handoff] ");
        error.ShouldContain("--help");
    }

    [Theory]
    [InlineData("107 web", "web")]
    [InlineData("107,1x5", "1x5")]
    [InlineData("0", "0")]
    [InlineData("107;reboot", "107;reboot")]
    public void A_word_in_the_list_of_containers_that_is_no_number_is_exit_code_2_and_names_it(string list, string word)
    {
        foreach (var arguments in new string[][] { ["to_vfio"], ["plan", "to_vfio", "--root", _machine], ["handoff", "vfio"] })
        {
            var (exit, output, error) = Tool.Run(("LXC_RESTART_IDS", list), arguments);
            exit.ShouldBe(2, error);
            output.ShouldBeEmpty();
            error.ShouldContain("LXC_RESTART_IDS takes numbers of containers");
            error.ShouldContain($"\"{word}\"");
        }
    }

    [Fact]
    public void On_the_way_back_nobody_reads_the_list_of_containers() =>
        Tool.Run(("LXC_RESTART_IDS", "107 web"), "plan", "to_nvidia", "--root", _machine).Exit.ShouldBe(0);

    [Theory]
    [InlineData("107 115")]
    [InlineData(" 107,115,, 107\t")]
    [InlineData("")]
    public void A_list_of_containers_takes_blanks_and_commas(string list) =>
        Tool.Run(("LXC_RESTART_IDS", list), "plan", "to_vfio", "--root", _machine).Exit.ShouldBe(0);

    [Theory]
    [InlineData("256M")]
    [InlineData("16g")]
    public void A_size_that_the_recorded_card_does_not_offer_is_refused_as_a_check(string size)
    {
        var (exit, output, error) = Tool.Run("plan", "to_vfio", "--bar1-size", size, "--root", _machine);
        exit.ShouldBe(1);
        output.ShouldBeEmpty();
        error.ShouldContain("[bar-size-not-offered]");
    }

    [Fact]
    public void A_reset_that_was_asked_for_is_in_the_plan_with_what_follows_where_it_fails()
    {
        var (exit, output, _) = Tool.Run("plan", "to_vfio", "--reset", "--allow-rescan", "--root", _machine);
        exit.ShouldBe(0);
        output.ShouldContain("no driver → vfio-pci, with a reset before\n      else: if ");
        output.ShouldContain("removal from the bus and a rescan");
    }

    [Fact]
    public void No_command_at_all_is_a_wrong_command_line() => Tool.Run().Exit.ShouldBe(2);

    [Theory]
    [InlineData("--help")]
    [InlineData("status", "--help")]
    [InlineData("to_vfio", "--help")]
    public void Help_is_asked_for_so_it_goes_to_stdout(params string[] arguments)
    {
        var (exit, output, error) = Tool.Run(arguments);
        exit.ShouldBe(0);
        output.ShouldContain("Usage:");
        error.ShouldBeEmpty();
    }

    [Fact]
    public void Version_is_one_line() => Tool.Run("version").Out.ShouldMatch(@"^gpu-handoff \d+\.\d+\.\d+\n$");

    [Theory]
    [InlineData("to_vfio")]
    [InlineData("to-vfio")]
    [InlineData("vfio")]
    public void A_plan_may_be_asked_for_by_any_name_of_its_target(string target)
    {
        var (exit, output, _) = Tool.Run("plan", target, "--root", _machine);
        exit.ShouldBe(0);
        output.ShouldContain("   1. ");
        output.ShouldContain("undo: ");
    }

    [Fact]
    public void A_plan_as_data_has_its_steps_with_their_kinds()
    {
        var (exit, output, _) = Tool.Run("plan", "to_vfio", "--json", "--root", _machine);
        exit.ShouldBe(0);
        using var data = JsonDocument.Parse(output);
        data.RootElement.GetProperty("result").GetString().ShouldBe("planned");
        var steps = data.RootElement.GetProperty("plan").GetProperty("phases").EnumerateArray()
            .SelectMany(p => p.GetProperty("steps").EnumerateArray()).Select(s => s.GetProperty("step").GetString()).ToList();
        steps.ShouldContain("unload-driver");
        steps.Count.ShouldBe(data.RootElement.GetProperty("steps").GetArrayLength());
    }

    [Fact]
    public void A_refusal_as_data_has_its_findings()
    {
        var (exit, output, _) = Tool.Run("plan", "to_vfio", "--json", "--root", _two);
        exit.ShouldBe(1);
        using var data = JsonDocument.Parse(output);
        data.RootElement.GetProperty("result").GetString().ShouldBe("refused");
        data.RootElement.GetProperty("findings")[0].GetProperty("code").GetString().ShouldBe("which-gpu");
    }

    [Fact]
    public void Status_as_data_is_the_whole_machine()
    {
        var (exit, output, _) = Tool.Run("status", "--json", "--root", _machine);
        exit.ShouldBe(0);
        using var data = JsonDocument.Parse(output);
        var function = data.RootElement.GetProperty("gpus")[0].GetProperty("functions")[0];
        function.GetProperty("address").GetString().ShouldBe("0000:01:00.0");
        function.GetProperty("owner").GetProperty("driver").GetString().ShouldBe("nvidia");
    }

    [Theory]
    [InlineData("0", "0000:01:00")]
    [InlineData("02:00", "0000:02:00")]
    public void A_selector_picks_one_of_several(string selector, string slot)
    {
        var (exit, output, _) = Tool.Run("status", "--gpu", selector, "--root", _two);
        exit.ShouldBe(0);
        output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length.ShouldBe(2);
        output.ShouldContain(slot);
    }

    [Theory]
    [InlineData("7")]
    [InlineData("0b:00")]
    [InlineData("zero")]
    public void An_unknown_gpu_is_refused_with_the_list_of_those_there(string selector)
    {
        var (exit, output, error) = Tool.Run("plan", "to_vfio", "--gpu", selector, "--root", _two);
        exit.ShouldBe(1);
        output.ShouldBeEmpty();
        error.ShouldContain("0000:02:00.0");
        error.ShouldContain("nothing was changed");
    }
}
