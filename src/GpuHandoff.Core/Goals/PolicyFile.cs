using System.Collections.Immutable;

namespace GpuHandoff.Goals;

/// <summary>The keys of one file. Every error is told, not the first alone.</summary>
sealed class PolicyFile(string file, ImmutableArray<PolicyError>.Builder errors)
{
    /// <summary>Keys with others below them.</summary>
    static readonly string[] _sections = ["gpus", "limits", "users", "users.container", "users.unit"];

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
        Section("", root, everywhere.Add, isCard: false);
        foreach (var (key, value) in root.Map.Value.Where(p => IsText(p.Key) && p.Key.Text == "gpus"))
            Cards(key, value, cards);
        return said with { Files = everywhere.ToImmutable(), Cards = cards.ToImmutable() };
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
                Section("", keys, setting => cards.Add(new(card, setting)), isCard: true);
        }
    }

    /// <summary>The keys of one map.</summary>
    /// <param name="prefix">Of the section: <c>users.</c>, at the top nothing.</param>
    void Section(string prefix, PolicyNode section, Action<Setting> add, bool isCard)
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
            else if (_sections.Contains(name) && !(isCard && name is "gpus" or "limits"))
                Below(name, value, add, isCard);
            else if (PolicyKey.All.FirstOrDefault(k => k.Name == name) is not { } known)
                Wrong(key, $"there is no key {key.Say()}{(prefix is "" ? "" : $" below {prefix[..^1]}")}", Nearest(prefix, key.Text, isCard));
            else if (isCard && known.WholeRun)
                Wrong(key, $"{name} holds for the whole run, not for one GPU", "write it at the top of the file, above gpus");
            else
                Take(name, known.Read(value), key, add);
        }
    }

    void Below(string name, PolicyNode value, Action<Setting> add, bool isCard)
    {
        if (value.IsNothing() || name == "gpus")
            return;
        if (value.Map is null)
            Wrong(value, $"{name} takes a map of keys, not {value.Say()}", $"the keys below it: {Keys(name + ".", isCard)}");
        else
            Section(name + ".", value, add, isCard);
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
    static string Nearest(string prefix, string text, bool isCard)
    {
        var name = text.Replace('_', '-').ToLowerInvariant();
        var here = Names(prefix, isCard).ToList();
        if (here.Contains(name))
            return $"did you mean {name}?";
        if (prefix is "" && _options.TryGetValue(name, out var meant))
            return $"did you mean {meant}?";
        if (isCard && name is "gpus" or "limits")
            return $"{name} stands at the top of the file";
        if (Spelling.Nearest(name, here) is { } near)
            return $"did you mean {near}?";
        var elsewhere = PolicyKey.All.Select(k => k.Name).Concat(_sections).FirstOrDefault(k => k.Split('.')[^1] == name);
        return elsewhere is null ? $"the keys here: {string.Join(", ", here)}"
            : elsewhere.Contains('.') ? $"it stands below {elsewhere[..elsewhere.LastIndexOf('.')]}"
            : "it stands at the left margin, or below a GPU";
    }

    static string Keys(string prefix, bool isCard) => string.Join(", ", Names(prefix, isCard));

    static IEnumerable<string> Names(string prefix, bool isCard) => PolicyKey.All.Where(k => !isCard || !k.WholeRun).Select(k => k.Name)
        .Concat(_sections.Where(s => !isCard || s is not ("gpus" or "limits")))
        .Where(k => k.StartsWith(prefix, StringComparison.Ordinal)).Select(k => k[prefix.Length..]).Where(k => !k.Contains('.'));

    static bool IsText(PolicyNode node) => node is { Map: null, List: null } && !node.IsNothing();

    void Wrong(PolicyNode at, string what, string hint) => errors.Add(new(file, Math.Max(1, at.Line), Math.Max(1, at.Column), what, hint));
}
