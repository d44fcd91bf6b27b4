using System.Collections.Immutable;
using System.Text;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Goals;

public class ReadingPolicies
{
    const string File = "/etc/gpu-handoff.yaml";

    static (PolicySet Said, ImmutableArray<PolicyError> Errors) Read(params string[] files) =>
        PolicyFiles.Read(files.Select((text, i) => new PolicyText(i == 0 ? File : $"/etc/gpu-handoff.d/{i}.yaml", Encoding.UTF8.GetBytes(text))));

    static PolicySet Fine(params string[] files)
    {
        var (said, errors) = Read(files);
        errors.ShouldBeEmpty(string.Join('\n', errors));
        return said;
    }

    static PolicyError Wrong(string text) => Read(text).Errors.ShouldHaveSingleItem();

    [Theory]
    [InlineData("")]
    [InlineData("# free-by: unload\n")]
    [InlineData("---\n")]
    [InlineData("\ufeff# a comment\r\n")]
    [InlineData("users:\n  # nvidia: refuse\nlimits:\ngpus:\n")]
    [InlineData("gpus:\n  05:00:\n    users:\n      unit:\n")]
    public void A_file_that_says_nothing_changes_nothing(string text)
    {
        var said = Fine(text);
        said.Files.ShouldBeEmpty();
        said.Cards.ShouldBeEmpty();
        said.Everywhere().ShouldBe(Policy.Default);
    }

    [Fact]
    public void Every_key_reaches_its_place()
    {
        var policy = Fine(
            """
            free-by: unbind
            accept-neighbours: [0000:05:00.2, "06:00.0"]
            claim: true
            reset-first: true
            resets: [bus, rescan]
            bar1-size: 16G
            lose-console: true
            wait: 0
            users:
              nvidia: stop
              display-manager: restart
              units: restart
              containers: stop
              processes: stop
              unit: {ollama.service: refuse}
              container: {107: restart, "docker:0123456789ab": stop}
            limits:
              total: 600
              call: 120.5
              reset: 100
              program: 5
              users: 200
            """).Everywhere();
        policy.By.ShouldBe(FreeBy.Unbind);
        policy.Accepted.ShouldBe([new(0, 5, 0, 2), new(0, 6, 0, 0)]);
        (policy.Claim, policy.ResetFirst, policy.LoseConsole).ShouldBe((true, true, true));
        policy.Resets.ShouldBe([Rung.Bus, Rung.Rescan]);
        policy.Bar1.ShouldBe(16UL << 30);
        policy.Patience.ShouldBe(TimeSpan.Zero);
        policy.Users.Nvidia.ShouldBe(Treatment.Stop);
        policy.Users.DisplayManager.ShouldBe(Treatment.Restart);
        policy.Users.Units.ShouldBe(Treatment.Restart);
        policy.Users.Containers.ShouldBe(Treatment.Stop);
        policy.Users.Processes.ShouldBe(Treatment.Stop);
        policy.Users.Unit.ShouldHaveSingleItem().ShouldBe(new("ollama.service", Treatment.Refuse));
        policy.Users.Container["107"].ShouldBe(Treatment.Restart);
        policy.Users.Container["docker:0123456789ab"].ShouldBe(Treatment.Stop);
        policy.Limits.ShouldBe(new Limits(TimeSpan.FromSeconds(120.5), TimeSpan.FromSeconds(120.5), TimeSpan.FromSeconds(600))
        {
            Reset = TimeSpan.FromSeconds(100),
            Program = TimeSpan.FromSeconds(5),
            Users = TimeSpan.FromSeconds(200),
        });
    }

    [Fact]
    public void What_is_said_of_a_VM_goes_before_what_is_said_of_all()
    {
        var said = Fine("vms:\n  101: {backup: refuse, pin: {vcpus: [\"2,10\", \"3\"]}}\n  102:\nbackup: always\nreboot: return\nbackup-containers: true\npin: {vcpus: \"4-6,2\", emulator: 0-1}\n");
        var all = said.Everywhere();
        (all.AtBackup, all.AtReboot, all.BackupContainers).ShouldBe((AtBackup.Always, AtReboot.Return, true));
        all.Pin.Vcpus.Select(set => set.Single()).ShouldBe([4, 5, 6, 2]);
        all.Pin.Emulator.ShouldBe([0, 1]);
        var one = said.OfVm("101").Everywhere();
        (one.AtBackup, one.AtReboot).ShouldBe((AtBackup.Refuse, AtReboot.Return));
        one.Pin.Vcpus.Select(set => string.Join(',', set)).ShouldBe(["2,10", "3"]);
        one.Pin.Emulator.ShouldBe([0, 1]);
        said.OfVm("102").ShouldBeSameAs(said);
    }

    [Fact]
    public void A_later_file_wins_key_by_key_and_each_value_knows_who_said_it()
    {
        var said = Fine(
            "claim: true\nbar1-size: 1G\nresets: [bus]\nusers:\n  units: stop\n  unit:\n    a.service: stop\n",
            "bar1-size: 2G\nresets: []\nusers:\n  unit:\n    b.service: restart\n");
        var policy = said.Everywhere();
        (policy.Claim, policy.Bar1, policy.Users.Units).ShouldBe((true, 2UL << 30, Treatment.Stop));
        // A list is replaced, a map is added to.
        policy.Resets.ShouldBeEmpty();
        policy.Users.Unit.Keys.ShouldBe(["a.service", "b.service"]);

        var values = said.Effective(null, new("boot", "6.12")).ToDictionary(v => v.Key, v => v.From.ToString());
        values["claim"].ShouldBe($"{File}:1");
        values["bar1-size"].ShouldBe("/etc/gpu-handoff.d/1.yaml:1");
        values["users.unit.a.service"].ShouldBe($"{File}:7");
        values["users.unit.b.service"].ShouldBe("/etc/gpu-handoff.d/1.yaml:5");
        values["free-by"].ShouldBe("default");
    }

    [Fact]
    public void The_command_line_goes_before_all_files_and_before_what_they_say_of_a_card()
    {
        var machine = new Desk(Hosts.TwoIdenticalGpus()).Survey();
        var said = Fine("gpus:\n  01:00:\n    bar1-size: 1G\n") with
        {
            Flags = [new("bar1-size", new("--bar1-size", 0), p => p with { Bar1 = 1 << 28 })],
        };
        said.On(machine).For(machine.Gpus[0]).Bar1.ShouldBe(1UL << 28);
        said.Effective(machine.Gpus[0], machine).Single(v => v.Key == "bar1-size").ShouldBe(new("bar1-size", "256M", new("--bar1-size", 0)));
    }

    [Theory]
    [InlineData("0000:02:00.0")]
    [InlineData("0000:02:00")]
    [InlineData("02:00")]
    [InlineData("02:00.1")]
    [InlineData("GPU-01234567-89ab-cdef-0123-456789abcdef")]
    [InlineData("GPU-01234567-89AB-CDEF-0123-456789ABCDEF")]
    public void A_card_is_named_by_address_slot_or_uuid(string name)
    {
        var machine = new Desk(Hosts.TwoIdenticalGpus()).Survey();
        machine = machine with { Gpus = [machine.Gpus[0], machine.Gpus[1] with { Uuid = "GPU-01234567-89ab-cdef-0123-456789abcdef" }] };
        var said = Fine($"claim: false\nusers: {{units: stop}}\ngpus:\n  {name}:\n    claim: true\n    users: {{containers: restart}}\n");
        var policy = said.On(machine);
        policy.For(machine.Gpus[0]).Claim.ShouldBeFalse();
        policy.For(machine.Gpus[1]).Claim.ShouldBeTrue();
        (policy.For(machine.Gpus[1]).Users.Units, policy.For(machine.Gpus[1]).Users.Containers).ShouldBe((Treatment.Stop, Treatment.Restart));
        said.Unmatched(machine).ShouldBeEmpty();
    }

    [Fact]
    public void A_card_that_a_vm_has_is_known_by_the_uuid_in_its_record()
    {
        const string uuid = "GPU-01234567-89ab-cdef-0123-456789abcdef";
        var machine = new Desk(Hosts.SingleGpu()).Survey();
        var gpu = machine.Gpus.Single() with { Uuid = null };
        machine = machine with { Gpus = [gpu], Homes = [new(machine.BootId, gpu.Address, [], [], []) { Uuid = uuid }] };
        Fine($"gpus:\n  {uuid}:\n    claim: true\n").On(machine).For(gpu).Claim.ShouldBeTrue();
    }

    [Fact]
    public void A_gpu_that_is_not_there_is_told_and_so_is_a_uuid_that_a_silent_card_may_have()
    {
        var machine = new Desk(Hosts.SingleGpu()).Survey();
        var silent = machine with { Gpus = [machine.Gpus[0] with { Uuid = null }] };
        var known = machine with { Gpus = [machine.Gpus[0] with { Uuid = "GPU-00000000-0000-0000-0000-000000000001" }] };
        Fine("gpus:\n  0b:00:\n    claim: true\n").Unmatched(machine).ShouldHaveSingleItem().ShouldContain("not there: 0b:00");
        var byUuid = Fine("gpus:\n  GPU-01234567-89ab-cdef-0123-456789abcdef:\n    claim: true\n");
        byUuid.Unmatched(known).ShouldHaveSingleItem().ShouldContain("not there");
        byUuid.Unmatched(silent).ShouldHaveSingleItem().ShouldContain("0000:01:00 cannot tell one now");
    }

    [Theory]
    [InlineData("clam: true", 1, 1, "claim")]
    [InlineData("free_by: auto", 1, 1, "free-by")]
    [InlineData("stop-users: true", 1, 1, "users")]
    [InlineData("allow-rescan: true", 1, 1, "resets: [function, bus, rescan]")]
    [InlineData("nvidia: stop", 1, 1, "below users")]
    [InlineData("users:\n  unit:\n    a.service: stop\n  contaners: stop", 4, 3, "containers")]
    [InlineData("gpus:\n  05:00:\n    clam: true", 3, 5, "claim")]
    [InlineData("gpus:\n  05:00:\n    wait: 3", 3, 5, "top of the file")]
    [InlineData("gpus:\n  05:00:\n    limits: {total: 30}", 3, 5, "top of the file")]
    [InlineData("colour: red", 1, 1, "the keys here: free-by")]
    [InlineData("claim: yes", 1, 8, "did you mean true?")]
    [InlineData("claim: \"off\"", 1, 8, "did you mean false?")]
    [InlineData("claim:", 1, 1, "leave the key out")]
    [InlineData("claim: [true]", 1, 8, "true or false")]
    [InlineData("users: restart", 1, 8, "the keys below it: nvidia")]
    [InlineData("users: {units: restrat}", 1, 16, "did you mean restart?")]
    [InlineData("users: {processes: restart}", 1, 20, "refuse or stop")]
    [InlineData("users: {unit: {ollama: stop}}", 1, 16, "ollama.service")]
    [InlineData("users: {container: {mine: stop}}", 1, 21, "107")]
    [InlineData("resets: [functoin]", 1, 10, "did you mean function?")]
    [InlineData("resets: bus", 1, 9, "a list")]
    [InlineData("accept-neighbours: [05:00]", 1, 21, "addresses of functions")]
    [InlineData("bar1-size: 3G", 1, 12, "power of two")]
    [InlineData("bar1-size: 16", 1, 12, "power of two")]
    [InlineData("wait: 010", 1, 7, "seconds, 0 to 86400")]
    [InlineData("wait: \"10\"", 1, 7, "without quotes")]
    [InlineData("wait: 1e3", 1, 7, "seconds")]
    [InlineData("limits: {total: 9}", 1, 17, "10 to 86400")]
    [InlineData("limits: {call: 3601}", 1, 16, "1 to 3600")]
    [InlineData("gpus: [05:00]", 1, 7, "map")]
    [InlineData("gpus:\n  second: {claim: true}", 2, 3, "a GPU is an address")]
    [InlineData("gpus:\n  05:00: {claim: true}\n  \"0000:05:00.0\": {claim: false}", 3, 3, "in line 2")]
    [InlineData("claim: true\nclaim: true", 2, 1, "in line 1")]
    [InlineData("backup: sometimes", 1, 9, "always, free or refuse")]
    [InlineData("backup: refuze", 1, 9, "did you mean refuse?")]
    [InlineData("reboot: no", 1, 9, "keep or return")]
    [InlineData("backup-containers: yes", 1, 20, "did you mean true?")]
    [InlineData("pin: 2-7", 1, 6, "the keys below it: vcpus, emulator")]
    [InlineData("pin:\n  vcpu: 2-7", 2, 3, "did you mean vcpus?")]
    [InlineData("pin:\n  vcpus: 7-2", 2, 10, "each once")]
    [InlineData("pin:\n  vcpus: [\"2,10\", \"x\"]", 2, 19, "each once")]
    [InlineData("pin:\n  emulator: [0]", 2, 13, "host CPUs")]
    [InlineData("pin:\n  emulator: 0,0", 2, 13, "host CPUs")]
    [InlineData("vcpus: 2-7", 1, 1, "below pin")]
    [InlineData("vms: [101]", 1, 6, "a VM is its number")]
    [InlineData("vms:\n  windows:\n    backup: free", 2, 3, "such as 101")]
    [InlineData("vms:\n  101: free", 2, 8, "below it")]
    [InlineData("vms:\n  101: {backup: free}\n  \"101\": {reboot: keep}", 3, 3, "in line 2")]
    [InlineData("vms:\n  101:\n    claim: true", 3, 5, "write it at the top of the file")]
    [InlineData("vms:\n  101:\n    users: {units: stop}", 3, 5, "top of the file")]
    [InlineData("vms:\n  101:\n    bakcup: free", 3, 5, "did you mean backup?")]
    [InlineData("gpus:\n  05:00:\n    backup: free", 3, 5, "below a VM in vms")]
    [InlineData("gpus:\n  05:00:\n    pin: {vcpus: 1}", 3, 5, "top of the file")]
    [InlineData("- claim", 1, 1, "key: value")]
    [InlineData("just words", 1, 1, "key: value")]
    [InlineData("claim: true\n---\nclaim: false", 2, 1, "document")]
    [InlineData("users: &all {units: stop}\n", 1, 8, "where it is needed")]
    [InlineData("claim: *all\n", 1, 8, "where it is needed")]
    [InlineData("claim: !!bool true\n", 1, 8, "tag")]
    [InlineData("users:\n\tunits: stop", 2, 1, "spaces")]
    [InlineData("claim: true\n\0free-by: unload", 2, 1, "take it out")]
    [InlineData("claim: true\nfoo: bar: baz", 2, 0, "indent by spaces")]
    [InlineData("claim: \"\\U00ffffff\"", 1, 0, "")]
    public void What_is_wrong_is_told_with_its_place_and_the_way_out(string text, int line, int column, string way)
    {
        var error = Wrong(text);
        (error.File, error.Line).ShouldBe((File, line));
        if (column > 0)
            error.Column.ShouldBe(column);
        $"{error.What} {error.Hint}".ShouldContain(way, Case.Sensitive);
        error.ToString().ShouldStartWith($"{File}:{line}:");
        error.Hint.ShouldNotBeEmpty();
    }

    [Fact]
    public void All_errors_of_all_files_are_told_at_once()
    {
        var errors = Read("clam: true\nusers: {units: 7}\nwait: soon\n", "claim: 1\n").Errors;
        errors.Select(e => (e.File, e.Line)).ShouldBe([(File, 1), (File, 2), (File, 3), ("/etc/gpu-handoff.d/1.yaml", 1)]);
    }

    [Fact]
    public void A_file_that_is_no_utf8_is_told_with_the_line()
    {
        byte[] bytes = [.. "claim: true\n# caf"u8, 0xe9, .. "\n"u8];
        var error = PolicyFiles.Read([new(File, bytes)]).Errors.ShouldHaveSingleItem();
        (error.Line, error.Column).ShouldBe((2, 6));
        error.What.ShouldContain("UTF-8");
    }

    [Theory]
    [InlineData('[')]
    [InlineData('{')]
    [InlineData('-')]
    [InlineData('?')]
    [InlineData('"')]
    [InlineData('&')]
    [InlineData('a')]
    [InlineData(':')]
    [InlineData('\n')]
    public void A_huge_file_of_one_kind_is_an_error_or_fine_and_takes_no_time(char kind)
    {
        var clock = System.Diagnostics.Stopwatch.StartNew();
        foreach (var text in new[] { new string(kind, PolicyFiles.Longest), string.Concat(Enumerable.Repeat($"{kind} ", PolicyFiles.Longest / 2)), new string(kind, PolicyFiles.Longest + 1) })
        {
            var errors = Read(text).Errors;
            if (kind != '\n' || text.Length > PolicyFiles.Longest)
                errors.ShouldNotBeEmpty();
        }
        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(20));
    }

    [Fact]
    public void A_laugh_a_billion_times_is_refused_at_the_first_anchor()
    {
        var text = "a: &a [x, x]\n" + string.Concat(Enumerable.Range('b', 20).Select(c => $"{(char)c}: &{(char)c} [*{(char)(c - 1)}, *{(char)(c - 1)}]\n"));
        Wrong(text).What.ShouldContain("anchors");
    }

    [Fact]
    public void Whatever_comes_is_read_or_told_with_its_file_and_line()
    {
        const string good =
            """
            free-by: unbind   # why
            accept-neighbours: ["0000:05:00.2"]
            users:
              units: restart
              unit:
                ollama.service: stop
            limits: {total: 600, call: 75}
            gpus:
              "0000:05:00.0":
                bar1-size: 16G
                resets: [function, bus]
            """;
        var told = 0;
        for (var seed = 0; seed < 6000; seed++)
        {
            var spoiler = new GpuHandoff.Tests.Malformed(seed);
            var bytes = spoiler.BytesOf(good);
            var errors = Should.NotThrow(() => PolicyFiles.Read([new(File, bytes)]).Errors, $"seed {seed}");
            errors.ShouldAllBe(e => e.File == File && e.Line > 0 && e.Column > 0 && e.What != "" && e.Hint != "", $"seed {seed}");
            told += errors.Length;
        }
        told.ShouldBeGreaterThan(1000);
        for (var seed = 0; seed < 2000; seed++)
        {
            var bytes = new byte[seed % 200];
            new Random(seed).NextBytes(bytes);
            Should.NotThrow(() => PolicyFiles.Read([new(File, bytes)]), $"bytes of seed {seed}");
        }
    }
}
