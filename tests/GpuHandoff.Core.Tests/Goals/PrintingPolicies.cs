using System.Text;
using FsCheck;
using FsCheck.Fluent;
using FsCheck.Xunit;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Simulation;

namespace GpuHandoff.Core.Tests.Goals;

public class PrintingPolicies
{
    static readonly Machine _machine = new Desk(Hosts.TwoIdenticalGpus()).Survey();

    static readonly string[] _units = ["ollama.service", "jellyfin@1.service", "a\\x2db.scope", "-.slice.service"];
    static readonly string[] _containers = ["107", "115", "docker:0123456789ab", "podman:fedcba"];

    static Gen<Treatment> Treatments => Gen.Elements(Enum.GetValues<Treatment>());

    static Gen<UsersPolicy> Users =>
        from words in Gen.ArrayOf(Treatments, 4)
        from processes in Gen.Elements(Treatment.Refuse, Treatment.Stop)
        from units in Gen.SubListOf(_units)
        from containers in Gen.SubListOf(_containers)
        from own in Gen.ArrayOf(Treatments, _units.Length + _containers.Length)
        select UsersPolicy.Default with
        {
            Nvidia = words[0],
            DisplayManager = words[1],
            Units = words[2],
            Containers = words[3],
            Processes = processes,
            Unit = UsersPolicy.Default.Unit.AddRange(units.Select((u, i) => KeyValuePair.Create(u, own[i]))),
            Container = UsersPolicy.Default.Container.AddRange(containers.Select((c, i) => KeyValuePair.Create(c, own[_units.Length + i]))),
        };

    static Gen<TimeSpan> Spans(int least, int most) => Gen.Choose(least * 1000, most * 1000).Select(ms => TimeSpan.FromMilliseconds(ms));

    static Gen<Policy> Policies =>
        from way in Gen.Elements(Enum.GetValues<FreeBy>())
        from truths in Gen.ArrayOf(Gen.Elements(true, false), 3)
        from accepted in Gen.SubListOf<PciAddress>([new(0, 5, 0, 2), new(0x10000, 0xff, 0x1f, 7)])
        from resets in Gen.SubListOf(Enum.GetValues<Rung>())
        from size in Gen.OneOf(Gen.Constant((ulong?)null), Gen.Choose(20, 59).Select(power => (ulong?)(1UL << power)))
        from users in Users
        from total in Spans(10, 86400)
        from limits in Gen.ArrayOf(Spans(1, 3600), 3)
        from toStop in Spans(30, 3600)
        from restart in Spans(10, 86400)
        from wait in Spans(0, 86400)
        select new Policy
        {
            By = way,
            Claim = truths[0],
            ResetFirst = truths[1],
            LoseConsole = truths[2],
            Accepted = [.. accepted],
            Resets = [.. resets],
            Bar1 = size,
            Users = users,
            Patience = wait,
            Limits = new(limits[0], limits[0], total) { Reset = limits[1], Program = limits[2], Users = toStop, Restart = restart },
        };

    static PolicySet Read(string text)
    {
        var (said, errors) = PolicyFiles.Read([new("shown.yaml", Encoding.UTF8.GetBytes(text))]);
        errors.ShouldBeEmpty(text);
        return said;
    }

    static string Values(PolicySet said) => string.Join('\n', new[] { null, _machine.Gpus[0], _machine.Gpus[1] }
        .Select(gpu => string.Join('\n', said.Effective(gpu, _machine).Select(v => $"{gpu?.Address} {v.Key}: {v.Value}"))));

    [Property(MaxTest = 300)]
    public FsCheck.Property What_is_shown_says_the_same_when_it_is_read() => Prop.ForAll(
        Policies.Two().ToArbitrary(),
        pair =>
        {
            var (everywhere, own) = pair;
            // Maps of names only grow from all cards to one, as they do in a file.
            own = own with
            {
                By = everywhere.By,
                Limits = everywhere.Limits,
                Patience = everywhere.Patience,
                Users = own.Users with
                {
                    Unit = everywhere.Users.Unit.SetItems(own.Users.Unit),
                    Container = everywhere.Users.Container.SetItems(own.Users.Container),
                },
            };
            PolicySet said = everywhere with { Own = Policy.Default.Own.Add(_machine.Gpus[1].Address, own) };
            var read = Read(PolicyYaml.Of(said, _machine));
            Values(read).ShouldBe(Values(said));
            read.Unmatched(_machine).ShouldBeEmpty();
        });

    [Fact]
    public void The_defaults_are_shown_each_with_its_key()
    {
        var text = PolicyYaml.Of(PolicySet.Default, _machine);
        text.ShouldContain("free-by: auto");
        text.ShouldContain("# default");
        text.ShouldNotContain("gpus:");
        Read(text).Everywhere().Limits.ShouldBe(Limits.Default);
        foreach (var key in PolicyKey.All)
            text.ShouldContain($"{key.Name.Split('.')[^1]}: ");
    }

    [Fact]
    public void What_differs_for_a_card_is_shown_below_it_with_the_line_that_says_so()
    {
        var said = Read("claim: true\ngpus:\n  02:00:\n    claim: false\n    users:\n      units: stop\n");
        var text = PolicyYaml.Of(said, _machine);
        text.ShouldContain("# shown.yaml:1");
        text[text.IndexOf("gpus:", StringComparison.Ordinal)..].Split('\n').Select(l => l.Split('#')[^1].Trim()).ShouldBe(
            ["gpus:", _machine.Gpus[1].Display().Name ?? "\"0000:02:00.0\":", "shown.yaml:4", "users:", "shown.yaml:6", ""]);
        var whole = PolicyYaml.Of(said, _machine, [_machine.Gpus[1]]);
        whole.ShouldContain("reset-first: false");
        whole.ShouldNotContain("limits");
    }

    [Fact]
    public void What_holds_for_a_VM_is_shown_below_it_and_reads_as_it_was()
    {
        var said = Read("pin: {vcpus: \"4-6,2\"}\nvms:\n  1001: {reboot: return}\n  101:\n    backup: refuse\n    pin: {vcpus: [\"2,10\", \"3\"], emulator: 0-1}\n");
        var text = PolicyYaml.Of(said, _machine);
        text[text.IndexOf("vms:", StringComparison.Ordinal)..].Split('\n').Select(l => l.Split('#')[0].TrimEnd()).ShouldBe(
            ["vms:", "  101:", "    backup: refuse", "    pin:", "      vcpus: [\"2,10\", \"3\"]", "      emulator: \"0-1\"", "  1001:", "    reboot: return", ""]);
        text.ShouldContain("vcpus: \"4-6,2\"");
        foreach (var vm in (string[])["101", "1001", "102"])
            PolicyKey.All.Select(k => k.Write(Read(text).OfVm(vm).Everywhere())).ShouldBe(PolicyKey.All.Select(k => k.Write(said.OfVm(vm).Everywhere())));
    }
}
