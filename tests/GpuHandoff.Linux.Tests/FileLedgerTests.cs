using System.Collections.Immutable;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Steps;

namespace GpuHandoff.Linux.Tests;

public sealed class FileLedgerTests : IDisposable
{
    static readonly PciAddress _gpu = new(0, 1, 0, 0);

    static readonly Home _home = new(
        "boot-1", _gpu,
        [new(_gpu, new("nvidia")) { Power = new("auto", true), Bar1 = 256UL << 20 }, new(_gpu with { Function = 1 }, new("snd_hda_intel", "none")), new(_gpu with { Function = 2 }, new(null))],
        [new("nvidia_drm", ["modeset=Y", "fbdev=Y"])],
        [new("/dev/nvidia0", new(195, 0, 0x1b6, 0, 44))]);

    static readonly Ladder _ladder = new(
        [Rung.Function, Rung.Bus, Rung.Rescan], [_gpu, _gpu with { Function = 1 }], new(0, 0, 1, 0), ["flr"]);

    readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void What_is_kept_is_read_back_as_it_was()
    {
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        ledger.Homes().ShouldBeEmpty();
        ledger.Keep(_home);
        ledger.Keep(_home with { BootId = "boot-2" });

        var read = ledger.Homes().ShouldHaveSingleItem();

        read.BootId.ShouldBe("boot-2");
        read.Functions.ShouldBe(_home.Functions);
        read.Modules.ShouldHaveSingleItem().Parameters.ShouldBe(["modeset=Y", "fbdev=Y"]);
        read.Nodes.ShouldBe(_home.Nodes);
        ledger.Forget(_gpu);
        ledger.Homes().ShouldBeEmpty();
        ledger.Forget(_gpu);
    }

    [Fact]
    public void A_record_of_the_first_version_is_read_and_knows_no_power_settings()
    {
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        ledger.Keep(_home);
        File.WriteAllText(Directory.GetFiles(_folder["state"]).Single(), """
            {"bootId":"boot-1","gpu":"0000:01:00.0","functions":[{"function":"0000:01:00.0","owner":{"driver":"nvidia","only":null}}],
             "modules":[],"nodes":[],"version":1}
            """);
        var home = ledger.Homes().ShouldHaveSingleItem();
        home.Version.ShouldBe(Home.Newest, "kept again, it is a record of today");
        home.Functions.ShouldHaveSingleItem().ShouldBe(new FunctionHome(_gpu, new("nvidia")));
    }

    [Fact]
    public void Only_its_owner_may_read_it()
    {
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        ledger.Keep(_home);
        File.GetUnixFileMode(_folder["state"]).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        File.GetUnixFileMode(Directory.GetFiles(_folder["state"]).ShouldHaveSingleItem())
            .ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    [Fact]
    public void What_was_stopped_is_read_back_in_its_order()
    {
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        ImmutableArray<Stopped> stopped =
            [new(Container: new(ContainerKind.Lxc, "107")), new(Unit: "ollama.service"), new(Persistence: _gpu)];
        ledger.Keep(_home with { Stopped = stopped });
        ledger.Homes().ShouldHaveSingleItem().Stopped.ShouldBe(stopped);
    }

    [Fact]
    public void A_record_of_version_2_is_still_read_with_what_was_stopped_and_knows_no_console()
    {
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        ledger.Keep(_home);
        File.WriteAllText(
            Directory.GetFiles(_folder["state"]).Single(),
            """
            {"bootId":"boot-1","gpu":"0000:01:00.0","functions":[{"function":"0000:01:00.0","owner":{"driver":"nvidia","only":null}}],
             "modules":[],"nodes":[],"version":2,"stopped":[{"unit":"ollama.service","container":null,"persistence":null}]}
            """);

        var read = ledger.Homes().ShouldHaveSingleItem();

        read.Stopped.ShouldBe([new(Unit: "ollama.service")]);
        read.Console.ShouldBeNull();
        read.Uuid.ShouldBeNull();
    }

    [Fact]
    public void A_record_of_version_1_is_still_read_and_knows_of_nothing_stopped()
    {
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        ledger.Keep(_home);
        File.WriteAllText(
            Directory.GetFiles(_folder["state"]).Single(),
            """
            {"bootId":"boot-1","gpu":"0000:01:00.0","functions":[{"function":"0000:01:00.0","owner":{"driver":"nvidia","only":null}}],
             "modules":[{"name":"nvidia_drm","parameters":["modeset=Y","fbdev=Y"]}],
             "nodes":[{"path":"/dev/nvidia0","node":{"major":195,"minor":0,"mode":438,"owner":0,"group":44}}],"version":1}
            """);

        var read = ledger.Homes().ShouldHaveSingleItem();

        read.Functions.ShouldBe([new(_gpu, new("nvidia"))]);
        read.Nodes.ShouldBe(_home.Nodes);
        read.Stopped.ShouldBeEmpty();
        ledger.Keep(read);
        ledger.Homes().ShouldHaveSingleItem().Version.ShouldBe(Home.Newest);
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("null")]
    [InlineData("[]")]
    [InlineData("{\"bootId\":\"b\"}")]
    [InlineData("{\"bootId\":\"b\",\"gpu\":\"nonsense\",\"functions\":[],\"modules\":[],\"nodes\":[]}")]
    [InlineData("\u0000\u0001\u0002")]
    public void A_damaged_record_is_told_with_its_path_and_the_way_out_and_is_not_overwritten(string text)
    {
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        ledger.Keep(_home);
        var path = Directory.GetFiles(_folder["state"]).Single();
        File.WriteAllText(path, text);

        var refused = Should.Throw<LedgerRefused>(() => ledger.Homes());

        refused.Message.ShouldContain(path);
        refused.Hint.ShouldContain("rm");
        File.ReadAllText(path).ShouldBe(text);
    }

    [Fact]
    public void A_folder_that_others_may_write_is_not_trusted()
    {
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        ledger.Keep(_home);
        File.SetUnixFileMode(_folder["state"], (UnixFileMode)Convert.ToInt32("777", 8));
        Should.Throw<LedgerRefused>(() => ledger.Homes()).Hint.ShouldContain("chmod 0700");
        Should.Throw<LedgerRefused>(() => ledger.Keep(_home));
    }

    [Fact]
    public void A_link_in_place_of_the_folder_is_not_followed()
    {
        Directory.CreateDirectory(_folder["elsewhere"]);
        Directory.CreateSymbolicLink(_folder["state"], _folder["elsewhere"]);
        Should.Throw<LedgerRefused>(() => new FileLedger(_folder["state"], _folder["run"]).Keep(_home));
        Directory.GetFiles(_folder["elsewhere"]).ShouldBeEmpty();
    }

    [Fact]
    public void The_journal_tells_the_plan_and_every_step_and_the_last_one_is_kept()
    {
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        var plan = new Plan(Target.Vfio, [_gpu], "a plan", [new("bind", [new Rebind(_gpu, new("nvidia"), Owner.VfioKept)])]);
        using (var first = ledger.Open(plan))
            first.Begins(0);
        using (var journal = ledger.Open(plan))
        {
            journal.Begins(0);
            journal.Undone(0);
            journal.Closes(new Outcome.RolledBack("because", null));
        }
        var lines = File.ReadAllLines(_folder["state/journal-0000:01:00.0"]);
        lines[0].ShouldStartWith("{\"journal\":1,\"plan\":{\"target\":\"vfio\",\"gpus\":[\"0000:01:00.0\"]");
        lines[0].ShouldContain("\"step\":\"rebind\"");
        lines[1..].ShouldBe(["{\"begins\":0}", "{\"undone\":0}", "{\"closes\":\"rolled-back\"}"]);
        File.ReadAllLines(_folder["state/journal-0000:01:00.0.previous"])[1..].ShouldBe(["{\"begins\":0}"]);
    }

    [Fact]
    public void A_run_that_did_not_write_its_end_is_found_with_the_steps_that_it_had_begun()
    {
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        ledger.Unfinished().ShouldBeEmpty();
        var plan = new Plan(Target.Vfio, [_gpu], "a plan", [new("bind", [new LoadModule("vfio_pci", []), new Rebind(_gpu, new("nvidia"), Owner.VfioKept)])])
        {
            BootId = "boot-1",
        };
        using (var journal = ledger.Open(plan))
        {
            journal.Begins(0);
            journal.Ends(0);
            journal.Begins(1);
            ledger.Unfinished().ShouldHaveSingleItem().Begun.ShouldBe([0, 1]);
            journal.Undone(1);
        }
        // A line that the power cut off.
        File.AppendAllText(_folder["state/journal-0000:01:00.0"], "{\"begi");

        var run = ledger.Unfinished().ShouldHaveSingleItem();

        run.Begun.ShouldBe([0]);
        run.Plan.BootId.ShouldBe("boot-1");
        run.Plan.Steps().Select(s => s.Say()).ShouldBe(plan.Steps().Select(s => s.Say()));
        ledger.Close(run, "recovered");
        ledger.Unfinished().ShouldBeEmpty();
        File.ReadAllLines(_folder["state/journal-0000:01:00.0"])[^1].ShouldBe("{\"closes\":\"recovered\"}");
    }

    [Theory]
    [InlineData("nonsense\n", 1)]
    [InlineData("{\"journal\":9,\"plan\":{}}\n", 1)]
    [InlineData("{\"journal\":1,\"plan\":{\"target\":\"vfio\",\"gpus\":[],\"summary\":\"\",\"phases\":[]}}\n", 1)]
    [InlineData("{\"journal\":1,\"plan\":{\"target\":\"vfio\",\"gpus\":[\"0000:01:00.0\"],\"summary\":\"\",\"phases\":[]}}\n{\"begins\":0}\n", 2)]
    [InlineData("{\"journal\":1,\"plan\":{\"target\":\"vfio\",\"gpus\":[\"0000:01:00.0\"],\"summary\":\"\",\"phases\":[]}}\n{\"eats\":0}\n", 2)]
    public void A_journal_that_nobody_wrote_so_is_told_with_its_path_and_line_and_left_alone(string text, int line)
    {
        Directory.CreateDirectory(_folder["state"], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        var path = _folder["state/journal-0000:01:00.0"];
        File.WriteAllText(path, text);

        var refused = Should.Throw<LedgerRefused>(() => new FileLedger(_folder["state"], _folder["run"]).Unfinished());

        refused.Message.ShouldContain($"{path}, line {line}:");
        refused.Hint.ShouldContain("rm");
        File.ReadAllText(path).ShouldBe(text);
    }

    [Fact]
    public void A_mark_for_a_stuck_card_is_read_back_and_can_be_taken_off()
    {
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        var wedge = new Wedge("boot-1", _gpu, "write \"x\" to unbind", TimeSpan.FromSeconds(812), new(4211, 77, "state D"), ["one", "two"]);
        ledger.Mark(wedge);
        var read = ledger.Wedges().ShouldHaveSingleItem();
        (read with { NotUndone = [] }).ShouldBe(wedge with { NotUndone = [] });
        read.NotUndone.ShouldBe(wedge.NotUndone);
        ledger.Unmark(_gpu);
        ledger.Wedges().ShouldBeEmpty();
    }

    [Fact]
    public void A_plan_reads_back_from_its_json_step_by_step()
    {
        ImmutableArray<Step> steps =
        [
            new LoadModule("vfio_pci", [], Stays: true), new UnloadModule("nvidia_drm", ["modeset=Y"]),
            new UnloadDriver("nvidia", [], [new(_gpu, new("nvidia"))]), new LoadDriver("nvidia", [], [new(_gpu, new("nvidia"))]),
            new Rebind(_gpu, null, Owner.VfioKept), new LetKernelPick(_gpu, new(0x10de, 0x2684), Owner.VfioKept), new AwaitIdle(_gpu),
            new RemoveNodes(_home.Nodes), new MakeNodes(_home.Nodes),
            new HoldPower([new(_gpu, new("auto", true), new("on", false)), new(_gpu with { Function = 1 }, new(null, true), new(null, false))]),
            new ResizeBar(_gpu, 256UL << 20, 16UL << 30),
            new Rebind(_gpu, Owner.VfioKept, new("nvidia")) { Ladder = _ladder },
            new Rebind(_gpu, new(null), Owner.VfioKept) { Ladder = _ladder, ResetFirst = true },
            new LoadDriver("nvidia", [], [new(_gpu, new("nvidia"))]) { Ladders = [_ladder] },
            new StopUnit("ollama.service"), new StartUnit("ollama.service"),
            new StopContainer(new(ContainerKind.Docker, "0123456789ab")), new StartContainer(new(ContainerKind.Lxc, "107")),
            new StopProcess(4211, 81234, "python3"), new SwitchPersistence(_gpu, On: false), new Drain(_gpu, On: true),
            new MakeFolder("/var/lib/vz/snippets"), new RemoveFolder("/var/lib/vz/snippets"), new LinkProgram("/var/lib/vz/snippets/gpu-handoff", null, "/x"),
            new SetVm(101, [new("hostpci0", null, "0000:05:00"), new("hookscript", "local:snippets/gpu-handoff", null)]),
            new AwaitRelease(["nvidia"], [new(4211, "python3", "/dev/nvidia0", new(195, 0, 0x1b6, 0, 44)) { Of = new(User: "bob"), Started = 81234 }]),
        ];
        var plan = new Plan(Target.Vfio, [_gpu], "all of them", [new("one", steps)]);
        var text = System.Text.Json.JsonSerializer.Serialize(plan, Formats.Json.Default.Plan);
        var read = System.Text.Json.JsonSerializer.Deserialize(text, Formats.Json.Default.Plan).ShouldNotBeNull();
        read.Steps().Select(s => s.Say()).ShouldBe(plan.Steps().Select(s => s.Say()));
        read.Steps().Select(s => s.SayElse()).ShouldBe(plan.Steps().Select(s => s.SayElse()));
        read.Steps().Select(s => s.GetType()).ShouldBe(plan.Steps().Select(s => s.GetType()));
    }
}
