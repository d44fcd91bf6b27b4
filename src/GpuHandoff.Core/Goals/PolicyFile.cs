using System.Collections.Immutable;

namespace GpuHandoff.Goals;

/// <summary>The keys of one file. Every error is told, not the first alone.</summary>
sealed class PolicyFile(string file, ImmutableArray<PolicyError>.Builder errors)
{
    /// <summary>What a key may be said of.</summary>
    enum Scope
    {
        Everything,
        Card,
        Vm,
    }

    /// <summary>Keys with others below them.</summary>
    static readonly string[] _sections = ["gpus", "limits", "pin", "users", "users.container", "users.unit", "vms"];

    static bool IsIn(string section, Scope scope) => scope switch
    {
        Scope.Card => section is not ("gpus" or "limits" or "pin" or "vms"),
        Scope.Vm => section is "pin",
        _ => true,
    };

    static bool IsIn(PolicyKey key, Scope scope) => scope switch
    {
        Scope.Card => !key.WholeRun,
        Scope.Vm => key.OfVm,
        _ => true,
    };

    /// <summary>Of the command line, and what is meant by them here.</summary>
    static readonly ImmutableSortedDictionary<string, string> _options = ImmutableSortedDictionary<string, string>.Empty
        .Add("policy", "free-by").Add("accept-neighbour", "accept-neighbours").Add("allow-rescan", "resets: [function, bus, rescan]")
        .Add("reset", "reset-first").Add("stop-users", "users, with a word for each kind of them").Add("timeout", "limits.total")
        .Add("call-timeout", "limits.call").Add("gpu", "gpus");

    public PolicySet Read(PolicyNode root, PolicySet said)
    {
        if (root.Map is null)
        {
            Wrong(root, $"{root.Say()} stands where a map of keys should", "write \"key: value\"");
            return said;
        }
        var (everywhere, cards) = (said.Files.ToBuilder(), said.Cards.ToBuilder());
        Section("", root, everywhere.Add, Scope.Everything);
        foreach (var (key, value) in root.Map.Value.Where(p => IsText(p.Key) && p.Key.Text == "gpus"))
            Cards(key, value, cards);
        var vms = said.Vms.ToBuilder();
        foreach (var (_, value) in root.Map.Value.Where(p => IsText(p.Key) && p.Key.Text == "vms"))
            Vms(value, vms);
        return said with { Files = everywhere.ToImmutable(), Cards = cards.ToImmutable(), Vms = vms.ToImmutable() };
    }

    void Vms(PolicyNode value, ImmutableArray<VmSetting>.Builder vms)
    {
        const string form = "a VM is its number in Proxmox, such as 101";
        if (value.IsNothing())
            return;
        if (value.Map is not { } map)
        {
            Wrong(value, $"vms takes a map, not {value.Say()}", $"{form}, with its keys below it");
            return;
        }
        var seen = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (var (key, keys) in map)
        {
            if (!IsText(key) || !Proxmox.ProxmoxNode.TryId(key.Text, out _))
                Wrong(key, $"{key.Say()} is no VM", form);
            else if (!seen.TryAdd(key.Text, key.Line))
                Wrong(key, $"{key.Say()} is here already, in line {seen[key.Text]}", "put both together: only one could count");
            else if (keys.IsNothing())
                continue;
            else if (keys.Map is null)
                Wrong(keys, $"{key.Text} takes a map of keys, not {keys.Say()}", "write its keys below it, indented further");
            else
                Section("", keys, setting => vms.Add(new(key.Text, setting)), Scope.Vm);
        }
    }

    void Cards(PolicyNode gpus, PolicyNode value, ImmutableArray<CardSetting>.Builder cards)
    {
        const string form = "a GPU is an address (0000:05:00.0), a slot (05:00) or a UUID (GPU-…)";
        if (value.IsNothing())
            return;
        if (value.Map is not { } map)
        {
            Wrong(value, $"gpus takes a map, not {value.Say()}", $"{form}, with its keys below it");
            return;
        }
        var seen = new List<(CardName Card, int Line)>();
        foreach (var (key, keys) in map)
        {
            if (!IsText(key) || CardName.Parse(key.Text) is not { } card)
            {
                Wrong(key, $"{key.Say()} names no GPU", form);
                continue;
            }
            if (seen.Find(s => s.Card.IsSame(card)) is { Card: not null } first)
            {
                Wrong(key, $"\"{card}\" is here already, in line {first.Line}", "put both together: only one could count");
                continue;
            }
            seen.Add((card, key.Line));
            if (keys.IsNothing())
                continue;
            if (keys.Map is null)
                Wrong(keys, $"{card} takes a map of keys, not {keys.Say()}", "write its keys below it, indented further");
            else
                Section("", keys, setting => cards.Add(new(card, setting)), Scope.Card);
        }
    }

    /// <summary>The keys of one map.</summary>
    /// <param name="prefix">Of the section: <c>users.</c>, at the top nothing.</param>
    void Section(string prefix, PolicyNode section, Action<Setting> add, Scope scope)
    {
        var seen = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (var (key, value) in section.Map!.Value)
        {
            if (!IsText(key))
            {
                Wrong(key, $"{key.Say()} is no key", "write \"key: value\"");
                continue;
            }
            if (!seen.TryAdd(key.Text, key.Line))
            {
                Wrong(key, $"{key.Say()} is here already, in line {seen[key.Text]}", "take one of the two out: only one could count");
                continue;
            }
            var name = prefix + key.Text;
            if (prefix is "users.unit." or "users.container.")
                Named(prefix[..^1], key, value, add);
            else if (_sections.Contains(name) && IsIn(name, scope))
                Below(name, value, add, scope);
            else if (PolicyKey.All.FirstOrDefault(k => k.Name == name) is not { } known)
                Wrong(key, $"there is no key {key.Say()}{(prefix is "" ? "" : $" below {prefix[..^1]}")}", Nearest(prefix, key.Text, scope));
            else if (scope == Scope.Card && known.OfVm)
                Wrong(key, $"{name} holds for VMs, not for one GPU", "write it at the top of the file, or below a VM in vms");
            else if (scope == Scope.Card && known.WholeRun)
                Wrong(key, $"{name} holds for the whole run, not for one GPU", "write it at the top of the file, above gpus");
            else if (!IsIn(known, scope))
                Wrong(key, $"{name} holds for every VM, not for one", "write it at the top of the file");
            else
                Take(name, known.Read(value), key, add);
        }
    }

    void Below(string name, PolicyNode value, Action<Setting> add, Scope scope)
    {
        if (value.IsNothing() || name is "gpus" or "vms")
            return;
        if (value.Map is null)
            Wrong(value, $"{name} takes a map of keys, not {value.Say()}", $"the keys below it: {Keys(name + ".", scope)}");
        else
            Section(name + ".", value, add, scope);
    }

    void Named(string map, PolicyNode key, PolicyNode value, Action<Setting> add)
    {
        if (PolicyKey.NameExpected(map, key.Text) is { } expected)
            Wrong(key, $"{key.Say()} is no name for {map}", $"write {expected}");
        else
            Take($"{map}.{key.Text}", PolicyKey.Named(map, key.Text, value), key, add);
    }

    void Take(string name, Taken taken, PolicyNode key, Action<Setting> add)
    {
        switch (taken)
        {
            case Taken.Value(var lay):
                add(new(name, new(file, key.Line), lay));
                break;
            case Taken.Wrong { At: var at } when at.IsNothing():
                Wrong(key, $"{name} has no value", "give it one, or leave the key out");
                break;
            case Taken.Wrong(var at, var expected):
                Wrong(at, $"{name} takes {expected}, not {at.Say()}", Instead(at.Text, expected) is { } word ? $"did you mean {word}?" : $"write {expected}, or leave the key out");
                break;
        }
    }

    /// <summary>The nearest right word among those that a value may be.</summary>
    static string? Instead(string text, string expected) => expected switch
    {
        "true or false" or "true or false without quotes" => text.ToLowerInvariant() switch
        {
            "yes" or "on" or "y" or "true" or "1" => "true",
            "no" or "off" or "n" or "false" or "0" => "false",
            _ => null,
        },
        _ => Spelling.Nearest(text, expected.Split([' ', ','], StringSplitOptions.RemoveEmptyEntries).Where(w => w.Length > 4 && !w.Contains(':')))
            is { } word && word != text ? word : null,
    };

    /// <summary>The way out of a key that is not known: the nearest one, the one with this name elsewhere, or all that there are.</summary>
    static string Nearest(string prefix, string text, Scope scope)
    {
        var name = text.Replace('_', '-').ToLowerInvariant();
        var here = Names(prefix, scope).ToList();
        if (here.Contains(name))
            return $"did you mean {name}?";
        if (prefix is "" && _options.TryGetValue(name, out var meant))
            return $"did you mean {meant}?";
        if (scope != Scope.Everything && _sections.Contains(name))
            return $"{name} stands at the top of the file";
        if (Spelling.Nearest(name, here) is { } near)
            return $"did you mean {near}?";
        var elsewhere = PolicyKey.All.Select(k => k.Name).Concat(_sections).FirstOrDefault(k => k.Split('.')[^1] == name);
        return elsewhere is null ? $"the keys here: {string.Join(", ", here)}"
            : elsewhere.Contains('.') ? $"it stands below {elsewhere[..elsewhere.LastIndexOf('.')]}"
            : "it stands at the left margin, or below a GPU";
    }

    static string Keys(string prefix, Scope scope) => string.Join(", ", Names(prefix, scope));

    static IEnumerable<string> Names(string prefix, Scope scope) => PolicyKey.All.Where(k => IsIn(k, scope)).Select(k => k.Name)
        .Concat(_sections.Where(s => IsIn(s, scope)))
        .Where(k => k.StartsWith(prefix, StringComparison.Ordinal)).Select(k => k[prefix.Length..]).Where(k => !k.Contains('.'));

    static bool IsText(PolicyNode node) => node is { Map: null, List: null } && !node.IsNothing();

    void Wrong(PolicyNode at, string what, string hint) => errors.Add(new(file, Math.Max(1, at.Line), Math.Max(1, at.Column), what, hint));
}
