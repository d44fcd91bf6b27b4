using System.Reflection;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Proxmox;
using GpuHandoff.Steps;

namespace GpuHandoff.Cli.Tests;

/// <summary>What is written about the program against what the program says of itself.</summary>
public partial class Documents
{
    /// <summary>Each command by its names, with the long options of its help.</summary>
    static readonly Lazy<IReadOnlyList<(string[] Names, string[] Options)>> _commands = new(() =>
        [.. Below().SelectMany(names => Below(names[0]) is { Count: > 0 } below ? below.Select(b => new[] { $"{names[0]} {b[0]}" }) : [names])
            .Select(names => (names, OptionsOf(names[0].Split(' '))))]);

    public static TheoryData<string> Whole { get; } =
    [
        "README.md",
        "docs/commands.md",
        "packaging/gpu-handoff.8",
        "packaging/completions/gpu-handoff.bash",
        "packaging/completions/gpu-handoff.zsh",
        "packaging/completions/gpu-handoff.fish",
    ];

    public static TheoryData<string> WithSynopsis { get; } = ["docs/commands.md", "packaging/gpu-handoff.8"];

    [Theory]
    [MemberData(nameof(Whole))]
    public void A_document_names_every_command(string document)
    {
        var text = Read(document);
        foreach (var (names, _) in _commands.Value)
        {
            // A completion offers one spelling of each command; words for people tell them all.
            var told = names.Where(name => (document.Contains("completions") ? name.Split(' ') : [name])
                .All(word => Regex.IsMatch(text, $@"(?<![\w-]){word}(?![\w-])"))).ToList();
            told.ShouldNotBeEmpty($"{document} does not know {string.Join(", ", names)}");
            if (!document.Contains("completions"))
                told.ShouldBe(names, ignoreOrder: false, $"{document} leaves a spelling out");
        }
    }

    [Theory]
    [MemberData(nameof(Whole))]
    public void A_document_names_every_long_option_and_no_other(string document)
    {
        var known = _commands.Value.SelectMany(c => c.Options).Concat(OptionsOf()).Distinct().ToList();
        var told = document.EndsWith(".fish", StringComparison.Ordinal)
            ? FishOption.Matches(Read(document)).Select(m => "--" + m.Groups[1].Value)
            : LongOption.Matches(Read(document)).Select(m => m.Value);
        told.Distinct().ShouldBe(known, ignoreOrder: true, document);
    }

    [Fact]
    public void The_page_on_commands_names_all_that_take_a_recorded_machine_and_no_other()
    {
        var said = Regex.Match(Read("docs/commands.md"), @"^- `--root DIR`: see \[status\].*?(?=^\S)", RegexOptions.Multiline | RegexOptions.Singleline).Value;
        Regex.Matches(said, "`([a-z ]+)`").Select(m => m.Groups[1].Value).ShouldBe(
            _commands.Value.Where(c => c.Options.Contains("--root")).Select(c => c.Names[0]), ignoreOrder: true);
    }

    [Fact]
    public void That_nothing_was_changed_is_said_in_one_place_of_the_source_which_knows_it() =>
        Directory.EnumerateFiles(Path.Combine(Tool.Repository, "src"), "*.cs", SearchOption.AllDirectories)
            .Where(file => !file.Contains("/obj/") && File.ReadAllText(file).Contains("\"nothing was changed", StringComparison.Ordinal)
                || File.ReadAllText(file).Contains("nothing was changed\"", StringComparison.Ordinal))
            .Select(Path.GetFileName).ShouldBe(["Footprint.cs"]);

    [Fact]
    public void Every_kind_of_step_is_told_to_who_reads_plans_as_data() =>
        typeof(Step).GetCustomAttributes<JsonDerivedTypeAttribute>().Select(kind => $"`{kind.TypeDiscriminator}`")
            .Where(kind => !Read("docs/commands.md").Contains(kind, StringComparison.Ordinal)).ShouldBeEmpty();

    // Neither at boot nor for a unit that is bound to it (systemd.unit(5): %i is the instance as it is written).
    [Fact]
    public void The_hosts_target_does_not_start_while_vfio_has_the_card() => Read("packaging/systemd/gpu-handoff-host@.target")
        .Split("[Install]")[0].Split('\n').ShouldContain("ConditionPathExists=!/sys/bus/pci/drivers/vfio-pci/%i");

    [Theory]
    [MemberData(nameof(WithSynopsis))]
    public void A_synopsis_gives_each_command_the_options_that_its_help_has(string document)
    {
        var synopsis = Synopsis(Read(document)).ToDictionary();
        synopsis.Keys.ShouldBe(_commands.Value.Select(c => c.Names.Single(synopsis.ContainsKey)), ignoreOrder: true, document);
        foreach (var (names, options) in _commands.Value)
        {
            var name = names.Single(synopsis.ContainsKey);
            synopsis[name].ShouldBe(options.Where(o => o != "--help"), ignoreOrder: true, $"{document}: {name}");
        }
    }

    [Theory]
    [InlineData("README.md")]
    [InlineData("docs/commands.md")]
    [InlineData("docs/checks.md")]
    [InlineData("docs/proxmox.md")]
    public void Code_in_a_document_calls_only_commands_that_there_are(string document)
    {
        var known = _commands.Value.SelectMany(c => c.Names).Select(name => name.Split(' ')[0]).ToList();
        foreach (var command in Code.Matches(Read(document)).SelectMany(m => Call.Matches(m.Value)).Select(m => m.Groups[1].Value))
            known.ShouldContain(command, document);
    }

    [Theory]
    [InlineData("docs/proxmox.md")]
    public void A_command_in_a_walk_through_is_one_of_ours_with_options_that_it_has(string document)
    {
        var calls = Code.Matches(Read(document)).SelectMany(m => CallWithOptions.Matches(m.Value)).ToList();
        calls.Count.ShouldBeGreaterThan(5);
        foreach (var call in calls)
        {
            var command = _commands.Value.SingleOrDefault(c => c.Names.Any(name => $"{call.Groups[1].Value} ".StartsWith($"{name} ", StringComparison.Ordinal)));
            command.Options.ShouldNotBeNull($"{document}: {call.Value}");
            LongOption.Matches(call.Groups[1].Value).Select(m => m.Value).Except(command.Options).ShouldBeEmpty($"{document}: {call.Value}");
        }
    }

    [Fact]
    public void A_new_user_of_proxmox_gets_there_in_under_ten_commands()
    {
        var block = QuickStart.Match(Read("docs/proxmox.md")).Groups[1].Value;
        // What hides behind a line's end counts as well.
        var commands = block.Split('\n').Where(line => line.Contains('@')).SelectMany(line => line.Split([" && ", "; "], StringSplitOptions.None)).ToList();
        commands.Count.ShouldBeInRange(5, 9, block);
        commands.ShouldContain(c => c.EndsWith("gpu-handoff attach 101", StringComparison.Ordinal));
        commands[^1].ShouldEndWith("qm start 101");
    }

    [Fact]
    public void What_a_new_user_installs_as_root_comes_from_no_folder_of_everybodys_and_with_the_kernel_of_its_headers()
    {
        var block = QuickStart.Match(Read("docs/proxmox.md")).Groups[1].Value;
        block.ShouldNotContain("/tmp");
        // The headers are those of the newest kernel, and a fresh host runs an older one.
        block.ShouldContain(" proxmox-default-kernel proxmox-default-headers ");
    }

    // apparmor/usr.sbin.libvirtd.in: /usr/sbin/* PUx, and no x for /usr/local.
    [Fact]
    public void Libvirts_hook_is_installed_where_AppArmor_lets_libvirt_run_it()
    {
        var steps = Fence.Match(Read("docs/libvirt.md")).Groups[1].Value;
        steps.ShouldContain("make install PREFIX=/usr\n");
        steps.ShouldContain("ln -s /usr/sbin/gpu-handoff /etc/libvirt/hooks/qemu.d/gpu-handoff\n");
        Read("docs/libvirt.md").ShouldContain("exec /usr/sbin/gpu-handoff \"$@\"");
    }

    [Fact]
    public void The_playbook_installs_the_units_that_there_are_and_no_other()
    {
        var book = Read("docs/examples/ansible/gpu-handoff.yml");
        var units = Directory.GetFiles(Path.Combine(Tool.Repository, "packaging", "systemd")).Select(Path.GetFileName).ToList();
        PlaybookUnit.Matches(book).Select(m => m.Groups[1].Value).ShouldBe(units, ignoreOrder: true);
    }

    [Fact]
    public void Every_check_has_a_page_with_its_reason_and_its_direction_and_there_is_no_other_page()
    {
        var text = Read("docs/checks.md");
        var pages = Heading.Split(text).Skip(1).Chunk(2).ToDictionary(p => p[0], p => Whitespace.Replace(p[1], " "));
        pages.Keys.Where(code => !code.Contains(' ')).ShouldBe(
            Rules.All.Select(c => c.Code), ignoreOrder: false, "docs/checks.md, in the order of Rules.All");
        foreach (var check in Rules.All)
        {
            pages[check.Code].ShouldContain($"Why: {check.Why}");
            pages[check.Code].ShouldContain(check.When switch
            {
                Target.Vfio => "When: to vfio-pci",
                Target.Host => "When: back to the host",
                null => "When: in both directions",
                _ => throw new InvalidOperationException($"no words for {check.When}"),
            });
        }
    }

    [Fact]
    public void The_page_on_the_policy_has_every_key_with_what_it_takes_and_its_default_and_no_other()
    {
        var rows = KeyRow.Matches(Read("docs/policy.md")).Select(m => (Key: m.Groups[1].Value, Takes: m.Groups[2].Value.Replace("`", ""), Default: m.Groups[3].Value)).ToList();
        rows.Select(r => (r.Key, r.Default)).ShouldBe(PolicyKey.All.Select(k => (k.Name, k.Write(Policy.Default))), ignoreOrder: true);
        foreach (var (name, takes, _) in rows.Where(r => PolicyKey.All.Single(k => k.Name == r.Key).Takes is var takes && (takes.StartsWith("seconds") || takes == "true or false")))
            takes.ShouldBe(PolicyKey.All.Single(k => k.Name == name).Takes, name);
    }

    [Theory]
    [InlineData("packaging/gpu-handoff.yaml", true)]
    [InlineData("docs/policy.md", false)]
    public void An_example_of_a_policy_is_one(string document, bool isComplete)
    {
        var text = Read(document);
        var policy = isComplete ? string.Join('\n', text.Split('\n').Select(line => line is ['#', not ' ', ..] or ['#', ' ', ' ', ..] ? line[1..] : line)) : Yaml.Match(text).Groups[1].Value;
        var (said, errors) = PolicyFiles.Read([new(document, System.Text.Encoding.UTF8.GetBytes(policy))]);
        errors.ShouldBeEmpty();
        said.Cards.ShouldNotBeEmpty();
        if (!isComplete)
            return;
        // As it stands it says nothing; without its signs of comment it says the defaults.
        PolicyFiles.Read([new(document, System.Text.Encoding.UTF8.GetBytes(text))]).Said.Files.ShouldBeEmpty();
        said.Files.Select(s => s.Key).Where(k => PolicyKey.All.Any(known => known.Name == k)).ShouldBe(PolicyKey.All.Select(k => k.Name), ignoreOrder: true);
        foreach (var key in PolicyKey.All)
            key.Write(said.Everywhere()).ShouldBe(key.Write(Policy.Default), key.Name);
    }

    [Fact]
    public void The_page_on_reliability_has_every_fault_that_a_test_shows()
    {
        var page = Read("docs/reliability.md");
        // Not all of tests/: a recorded machine has links that lead in circles, as a real one.
        var shown = Directory.EnumerateDirectories(Path.Combine(Tool.Repository, "tests"), "GpuHandoff.*")
            .SelectMany(project => Directory.EnumerateFiles(project, "*.cs", SearchOption.AllDirectories))
            .SelectMany(file => Recorded.Matches(File.ReadAllText(file))).Select(m => Regex.Unescape(m.Groups[1].Value)).ToList();
        shown.ShouldNotBeEmpty();
        foreach (var fault in shown)
            page.ShouldContain($"| {fault.Replace("|", "\\|")} |", Case.Sensitive, "make test, make soak and make reliability write the page anew");
    }

    [Theory]
    [InlineData("demo", "")]
    [InlineData("handoff", "--dry-run")]
    public void The_help_is_read_as_it_is_meant(string command, string option)
    {
        var (_, options) = _commands.Value.Single(c => c.Names.Contains(command));
        options.ShouldContain("--help");
        options.Contains(option).ShouldBe(option.Length > 0);
    }

    // Proxmox starts no VM with an entry that leaves out what its card has, and every card of NVIDIA's has all of them.
    [Fact]
    public void The_mapping_in_the_document_on_Proxmox_has_all_that_Proxmox_asks_for()
    {
        var mapping = PciMappings.Find(Read("docs/proxmox.md").Split("```\n").Single(block => block.StartsWith("gpu-pool\n", StringComparison.Ordinal)), "gpu-pool")
            .ShouldNotBeNull();
        mapping.Dropped.ShouldBeEmpty();
        mapping.Alternatives.Select(a => a.Node).ShouldBe(["pve1", "pve2", "pve3"]);
        mapping.Alternatives.ShouldAllBe(a => a.Group != null && a.Subsystem != null);
    }

    /// <summary>A file of the repository, without roff's escapes.</summary>
    static string Read(string document)
    {
        var text = File.ReadAllText(Path.Combine(Tool.Repository, document));
        return document.EndsWith(".8", StringComparison.Ordinal)
            ? string.Join('\n', text.Split('\n').Where(line => !line.StartsWith(@".\""", StringComparison.Ordinal)))
                .Replace(@"\-", "-").Replace(@"\ ", " ")
            : text;
    }

    static string[] OptionsOf(params string[] command) =>
        [.. FirstColumn(Tool.Run([.. command, "--help"]).Out, "Options:").SelectMany(c => LongOption.Matches(c)).Select(m => m.Value)];

    /// <summary>The commands below one, or below none, each by its names.</summary>
    static List<string[]> Below(params string[] command) =>
        [.. FirstColumn(Tool.Run([.. command, "--help"]).Out, "Commands:").Select(Names)];

    //   to-vfio, to_vfio                        Hand the GPU …
    static IEnumerable<string> FirstColumn(string help, string section) =>
        help.Split('\n').Select(line => line.TrimEnd('\r')).SkipWhile(line => line != section).Skip(1).TakeWhile(line => line.Length > 0)
            .Select(line => line.TrimStart().Split("  ")[0]);

    //   plan <TARGET>
    static string[] Names(string column) => column.Split('<')[0].Split([',', ' '], StringSplitOptions.RemoveEmptyEntries);

    /// <summary>The commands of a synopsis with their long options: a fenced block, or roff's .SY … .YS.</summary>
    static IEnumerable<(string Command, string[] Options)> Synopsis(string text)
    {
        var blocks = text.Contains(".SY ")
            ? Roff.Matches(text).Select(m => m.Groups[1].Value)
            : Fence.Match(text).Groups[1].Value.Split("gpu-handoff ", StringSplitOptions.RemoveEmptyEntries);
        foreach (var block in blocks)
            yield return (_commands.Value.SelectMany(c => c.Names).FirstOrDefault(name => Regex.IsMatch(block, $@"\A{name}\s")) ?? block, [.. LongOption.Matches(block).Select(m => m.Value)]);
    }

    // What a test tells: its first text is the fault.
    [GeneratedRegex(@"Evidence\.Record\(\s*""((?:[^""\\]|\\.)*)""")]
    static partial Regex Recorded { get; }

    [GeneratedRegex(@"^\| `([a-z0-9.-]+)` \| ([^|]+) \| `([^`]+)` \|", RegexOptions.Multiline)]
    static partial Regex KeyRow { get; }

    [GeneratedRegex(@"```yaml\n(.*?)```", RegexOptions.Singleline)]
    static partial Regex Yaml { get; }

    [GeneratedRegex(@"(?<![\w-])--[a-z][a-z0-9-]*")]
    static partial Regex LongOption { get; }

    [GeneratedRegex(@"(?<=\s)-l ([a-z][a-z0-9-]*)")]
    static partial Regex FishOption { get; }

    [GeneratedRegex(@"```[^\n]*\n.*?```|`[^`\n]+`", RegexOptions.Singleline)]
    static partial Regex Code { get; }

    // After a prompt, sudo or the start of a code span; "[gpu-handoff] …" and "# gpu-handoff …" are not calls.
    [GeneratedRegex(@"(?:^|`|\$ |sudo |&& )gpu-handoff ([a-z][\w-]*)", RegexOptions.Multiline)]
    static partial Regex Call { get; }

    // root@pve:~# gpu-handoff attach 101 --dry-run          `gpu-handoff vms`          /usr/local/sbin/gpu-handoff hook "$1" "$2"
    [GeneratedRegex(@"(?:^|[`#$/] ?)gpu-handoff ([a-z][\w-]*[^`\n]*)", RegexOptions.Multiline)]
    static partial Regex CallWithOptions { get; }

    [GeneratedRegex(@"<!-- quick start[^\n]*\n```console\n(.*?)```", RegexOptions.Singleline)]
    static partial Regex QuickStart { get; }

    [GeneratedRegex(@"^      - (gpu-handoff\S+)$", RegexOptions.Multiline)]
    static partial Regex PlaybookUnit { get; }

    [GeneratedRegex(@"^## (.+)$", RegexOptions.Multiline)]
    static partial Regex Heading { get; }

    [GeneratedRegex(@"\s+")]
    static partial Regex Whitespace { get; }

    [GeneratedRegex(@"```\n(.*?)```", RegexOptions.Singleline)]
    static partial Regex Fence { get; }

    [GeneratedRegex(@"\.SY gpu-handoff ([^\n]+\n.*?)\.YS", RegexOptions.Singleline)]
    static partial Regex Roff { get; }
}
