using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Machines;

namespace GpuHandoff.Goals;

/// <summary>A value that a key takes, or what it would have taken.</summary>
abstract record Taken
{
    public sealed record Value(Func<Policy, Policy> Lay) : Taken;

    public sealed record Wrong(PolicyNode At, string Expected) : Taken;
}

/// <summary>A key of the policy file: how its value is read, and how it is written.</summary>
/// <param name="Name">With dots where it stands below another: <c>users.nvidia</c>.</param>
/// <param name="WholeRun">It cannot differ from card to card.</param>
/// <param name="Takes">What it takes, for a person.</param>
/// <param name="Write">Its value in a policy, as YAML.</param>
public sealed record PolicyKey(string Name, bool WholeRun, string Takes, Func<Policy, string> Write)
{
    /// <summary>It may differ from VM to VM: how Proxmox's starts and ends are taken.</summary>
    public bool OfVm { get; init; }

    /// <summary>What a value makes of a policy.</summary>
    internal Func<PolicyNode, Taken> Read { get; init; } = node => new Taken.Wrong(node, "no value");

    // Above the list that is made of them: static members come to be in the order of the text.
    static readonly ImmutableSortedDictionary<string, FreeBy> _ways = Words(("auto", FreeBy.Auto), ("unload", FreeBy.Unload), ("unbind", FreeBy.Unbind));

    static readonly ImmutableSortedDictionary<string, Rung> _rungs = Words(("function", Rung.Function), ("bus", Rung.Bus), ("rescan", Rung.Rescan));

    static readonly ImmutableSortedDictionary<string, Treatment> _treatments =
        Words(("refuse", Treatment.Refuse), ("stop", Treatment.Stop), ("restart", Treatment.Restart));

    static readonly ImmutableSortedDictionary<string, AtBackup> _backups =
        Words(("always", AtBackup.Always), ("free", AtBackup.Free), ("refuse", AtBackup.Refuse));

    static readonly ImmutableSortedDictionary<string, AtReboot> _reboots = Words(("keep", AtReboot.Keep), ("return", AtReboot.Return));

    // A process has nobody who would start it again.
    static readonly ImmutableSortedDictionary<string, Treatment> _endings = Words(("refuse", Treatment.Refuse), ("stop", Treatment.Stop));

    /// <summary>Every key but those with a name of the user's own (<c>users.unit</c>, <c>users.container</c>, <c>gpus</c>).</summary>
    public static ImmutableArray<PolicyKey> All { get; } =
    [
        Word("free-by", _ways, p => p.By, (p, v) => p with { By = v }, wholeRun: true),
        new("accept-neighbours", WholeRun: false, "a list of addresses of functions, such as [0000:05:00.2]", p => Names(p.Accepted))
        {
            Read = List<PciAddress>(
                "a list of addresses of functions, such as [0000:05:00.2]",
                text => PciAddress.TryParse(text, out var address) ? address : null, (p, v) => p with { Accepted = v }),
        },
        Truth("claim", p => p.Claim, (p, v) => p with { Claim = v }),
        Truth("reset-first", p => p.ResetFirst, (p, v) => p with { ResetFirst = v }),
        new("resets", WholeRun: false, "a list of function, bus and rescan", p => Names(p.Resets.Select(Of(_rungs))))
        {
            Read = List<Rung>("a list of function, bus and rescan", text => _rungs.TryGetValue(text, out var rung) ? rung : null, (p, v) => p with { Resets = v }),
        },
        new("bar1-size", WholeRun: false, SizeTakes, p => p.Bar1 is { } size ? Say(size) : "keep")
        {
            Read = node => node is { Map: null, List: null } && Size(node.Text, out var size)
                ? new Taken.Value(p => p with { Bar1 = size })
                : new Taken.Wrong(node, SizeTakes),
        },
        Truth("lose-console", p => p.LoseConsole, (p, v) => p with { LoseConsole = v }),
        Word("users.nvidia", _treatments, p => p.Users.Nvidia, (p, v) => p with { Users = p.Users with { Nvidia = v } }),
        Word("users.display-manager", _treatments, p => p.Users.DisplayManager, (p, v) => p with { Users = p.Users with { DisplayManager = v } }),
        Word("users.units", _treatments, p => p.Users.Units, (p, v) => p with { Users = p.Users with { Units = v } }),
        Word("users.containers", _treatments, p => p.Users.Containers, (p, v) => p with { Users = p.Users with { Containers = v } }),
        Word("users.processes", _endings, p => p.Users.Processes, (p, v) => p with { Users = p.Users with { Processes = v } }),
        Seconds("limits.total", 10, 86400, p => p.Limits.Total, (l, v) => l with { Total = v }),
        Seconds("limits.call", 1, 3600, p => p.Limits.Write, (l, v) => l with { Write = v, Module = v }),
        Seconds("limits.reset", 1, 3600, p => p.Limits.Reset, (l, v) => l with { Reset = v }),
        Seconds("limits.program", 1, 3600, p => p.Limits.Program, (l, v) => l with { Program = v }),
        Seconds("limits.users", 30, 3600, p => p.Limits.Users, (l, v) => l with { Users = v }),
        Seconds("limits.restart", 10, 86400, p => p.Limits.Restart, (l, v) => l with { Restart = v }),
        Span("wait", 0, 86400, p => p.Patience, (p, v) => p with { Patience = v }),
        Word("backup", _backups, p => p.AtBackup, (p, v) => p with { AtBackup = v }, wholeRun: true) with { OfVm = true },
        Truth("backup-containers", p => p.BackupContainers, (p, v) => p with { BackupContainers = v }) with { WholeRun = true, OfVm = true },
        Word("reboot", _reboots, p => p.AtReboot, (p, v) => p with { AtReboot = v }, wholeRun: true) with { OfVm = true },
        new("pin.vcpus", WholeRun: true, VcpusTake, p => Say(p.Pin.Vcpus)) { OfVm = true, Read = Vcpus },
        new("pin.emulator", WholeRun: true, EmulatorTakes, p => p.Pin.Emulator is [] ? "none" : $"\"{CpuList.Say(p.Pin.Emulator)}\"") { OfVm = true, Read = Emulator },
    ];

    /// <summary>A unit or a container by its name: what becomes of it.</summary>
    internal static Taken Named(string map, string name, PolicyNode value)
    {
        if (value is not { Map: null, List: null } || !_treatments.TryGetValue(value.Text, out var treatment))
            return new Taken.Wrong(value, OneOf(_treatments.Keys));
        return map == "users.unit"
            ? new Taken.Value(p => p with { Users = p.Users with { Unit = p.Users.Unit.SetItem(name, treatment) } })
            : new Taken.Value(p => p with { Users = p.Users with { Container = p.Users.Container.SetItem(name, treatment) } });
    }

    internal static string Say(Treatment treatment) => Of(_treatments)(treatment);

    /// <summary>What the names below <c>users.unit</c> and <c>users.container</c> look like; null: this one is fine.</summary>
    internal static string? NameExpected(string map, string name)
    {
        var plain = name.Length is > 0 and <= 256 && name.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.' or ':' or '@' or '\\');
        return map == "users.unit"
            ? plain && _unitTypes.Any(type => name.EndsWith(type, StringComparison.Ordinal) && name.Length > type.Length)
                ? null : "a unit with its type, such as ollama.service"
            : plain && (name.All(char.IsAsciiDigit)
                || ((name.StartsWith("docker:", StringComparison.Ordinal) || name.StartsWith("podman:", StringComparison.Ordinal)) && name.Length > 7))
                ? null : "a number of Proxmox such as 107, or \"docker:ID\" or \"podman:ID\" in quotes";
    }

    // "2-7,10-15": the first vCPU to 2, the second to 3 …          ["2,10", "3,11"]: each to a set
    static Taken Vcpus(PolicyNode node)
    {
        if (node is { Map: null, List: { } items })
        {
            var sets = ImmutableArray.CreateBuilder<ImmutableArray<int>>();
            foreach (var item in items)
            {
                if (Cpus(item) is not { } set)
                    return new Taken.Wrong(item, VcpusTake);
                sets.Add(set);
            }
            return new Taken.Value(p => p with { Pin = p.Pin with { Vcpus = sets.ToImmutable() } });
        }
        return IsNone(node) ? new Taken.Value(p => p with { Pin = p.Pin with { Vcpus = [] } })
            : Cpus(node) is { } cpus ? new Taken.Value(p => p with { Pin = p.Pin with { Vcpus = [.. cpus.Select(cpu => ImmutableArray.Create(cpu))] } })
            : new Taken.Wrong(node, VcpusTake);
    }

    static Taken Emulator(PolicyNode node) => IsNone(node) ? new Taken.Value(p => p with { Pin = p.Pin with { Emulator = [] } })
        : Cpus(node) is { } cpus ? new Taken.Value(p => p with { Pin = p.Pin with { Emulator = cpus } })
        : new Taken.Wrong(node, EmulatorTakes);

    static bool IsNone(PolicyNode node) => node is { Map: null, List: null, Text: "none" };

    static ImmutableArray<int>? Cpus(PolicyNode node) => node is { Map: null, List: null } ? CpuList.Parse(node.Text) : null;

    // One processor for each is what most write, and reads best as one list.
    static string Say(ImmutableArray<ImmutableArray<int>> vcpus) => vcpus is [] ? "none"
        : vcpus.All(set => set.Length == 1) && vcpus.Select(set => set[0]).Distinct().Count() == vcpus.Length ? $"\"{CpuList.Say(vcpus.Select(set => set[0]))}\""
        : $"[{string.Join(", ", vcpus.Select(set => $"\"{CpuList.Say(set)}\""))}]";

    const string VcpusTake = "none, host CPUs such as \"2-7,10-15\", each once, or a list of them such as [\"2,10\", \"3,11\"]";

    const string EmulatorTakes = "none, or host CPUs such as \"0-1\", each once";

    const string SizeTakes = "keep, or a power of two in M, G or T, such as 16G";

    static readonly string[] _unitTypes = [".service", ".socket", ".scope", ".target", ".timer", ".mount", ".slice"];

    static ImmutableSortedDictionary<string, T> Words<T>(params (string Word, T Value)[] words) =>
        words.ToImmutableSortedDictionary(w => w.Word, w => w.Value, StringComparer.Ordinal);

    static Func<T, string> Of<T>(ImmutableSortedDictionary<string, T> words) where T : struct =>
        value => words.First(w => w.Value.Equals(value)).Key;

    static string OneOf(IEnumerable<string> words) => string.Join(", ", words.SkipLast(1)) + " or " + words.Last();

    static PolicyKey Word<T>(
        string name, ImmutableSortedDictionary<string, T> words, Func<Policy, T> get, Func<Policy, T, Policy> set, bool wholeRun = false)
        where T : struct => new(name, wholeRun, OneOf(words.Keys), p => Of(words)(get(p)))
        {
            Read = node => node is { Map: null, List: null } && words.TryGetValue(node.Text, out var value)
                ? new Taken.Value(p => set(p, value))
                : new Taken.Wrong(node, OneOf(words.Keys)),
        };

    static PolicyKey Truth(string name, Func<Policy, bool> get, Func<Policy, bool, Policy> set) =>
        new(name, WholeRun: false, "true or false", p => get(p) ? "true" : "false")
        {
            // Not yes, no, on, off: half of the world's YAML takes them for truths, the other half for text.
            Read = node => node is { Map: null, List: null, Plain: true, Text: "true" or "false" }
                ? new Taken.Value(p => set(p, node.Text == "true"))
                : new Taken.Wrong(node, node.Plain ? "true or false" : "true or false without quotes"),
        };

    static PolicyKey Seconds(string name, int least, int most, Func<Policy, TimeSpan> get, Func<Limits, TimeSpan, Limits> set) =>
        Span(name, least, most, get, (p, v) => p with { Limits = set(p.Limits, v) });

    static PolicyKey Span(string name, int least, int most, Func<Policy, TimeSpan> get, Func<Policy, TimeSpan, Policy> set)
    {
        var takes = $"seconds, {least} to {most}";
        return new(name, WholeRun: true, takes, p => get(p).TotalSeconds.ToString("0.###", CultureInfo.InvariantCulture))
        {
            // 010 is eight to one reader and ten to another.
            Read = node => node is { Map: null, List: null, Plain: true, Text: ['0'] or [not '0', ..] or ['0', '.', ..] }
                && decimal.TryParse(node.Text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var seconds)
                && seconds >= least && seconds <= most
                    ? new Taken.Value(p => set(p, TimeSpan.FromMilliseconds((long)(seconds * 1000))))
                    : new Taken.Wrong(node, node.Plain ? takes : $"{takes}, without quotes"),
        };
    }

    static Func<PolicyNode, Taken> List<T>(string expected, Func<string, T?> read, Func<Policy, ImmutableArray<T>, Policy> set) where T : struct => node =>
    {
        if (node.List is not { } items)
            return new Taken.Wrong(node, expected);
        var values = ImmutableArray.CreateBuilder<T>();
        foreach (var item in items)
        {
            if (item is not { Map: null, List: null } || read(item.Text) is not { } value)
                return new Taken.Wrong(item, expected);
            values.Add(value);
        }
        return new Taken.Value(p => set(p, values.ToImmutable()));
    };

    // Colons have a meaning of their own in YAML: in quotes an address is text to every reader.
    static string Names<T>(IEnumerable<T> values) => $"[{string.Join(", ", values.Select(v => v is PciAddress ? $"\"{v}\"" : $"{v}"))}]";

    static string Say(ulong size) => size >= 1UL << 40 ? $"{size >> 40}T" : size >= 1UL << 30 ? $"{size >> 30}G" : $"{size >> 20}M";

    /// <summary>256M, 16G: what resizable BAR offers are powers of two, from 1 MiB on. <c>keep</c> is null.</summary>
    public static bool Size(string word, out ulong? size)
    {
        size = null;
        if (word == "keep")
            return true;
        var shift = word is [.., 'M' or 'm'] ? 20 : word is [.., 'G' or 'g'] ? 30 : word is [.., 'T' or 't'] ? 40 : 0;
        if (shift == 0 || !ulong.TryParse(word.AsSpan(0, word.Length - 1), NumberStyles.None, CultureInfo.InvariantCulture, out var count)
            || count is 0 or > 1 << 20 || !ulong.IsPow2(count))
        {
            return false;
        }
        size = count << shift;
        return true;
    }
}
