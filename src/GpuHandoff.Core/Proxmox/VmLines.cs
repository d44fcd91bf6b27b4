namespace GpuHandoff.Proxmox;

/// <summary>One line of a VM's configuration, with both ends of its change; null: no such line.</summary>
public sealed record VmLine(string Key, string? From, string? To)
{
    public VmLine Back() => new(Key, To, From);

    /// <summary>Whether a value is the wanted one, whatever the order of its properties.</summary>
    public bool Is(string? now, string? wanted) => now == wanted || (now is not null && wanted is not null
        && Key.StartsWith("hostpci", StringComparison.Ordinal) && Properties(now) is { } a && Properties(wanted) is { } b
        && a.Count == b.Count && a.All(p => b.GetValueOrDefault(p.Key) == p.Value));

    static Dictionary<string, string>? Properties(string text)
    {
        try
        {
            return PropertyText.Parse(text, unnamed: "host");
        }
        catch (NotProxmox)
        {
            return null;
        }
    }

    public override string ToString() => $"{Key}: {To ?? "(none)"}";
}

/// <summary>The lines of a VM's configuration as they stand: what holds now, and what a start or a stop will make of it.</summary>
/// <remarks>qemu-server, PVE/QemuServer.pm:parse_vm_config and vmconfig_apply_pending.</remarks>
public sealed record VmLines(IReadOnlyDictionary<string, string> Now, IReadOnlyDictionary<string, string> Pending, IReadOnlyList<string> Deleted)
{
    /// <summary>What the next start finds; null: nothing.</summary>
    public string? Next(string key) => Pending.GetValueOrDefault(key) ?? (Deleted.Contains(key) ? null : Now.GetValueOrDefault(key));

    /// <summary>The devices that the next start finds. A line that Proxmox drops is not among them.</summary>
    public IEnumerable<HostPci> Devices()
    {
        for (var index = 0; index < HostPci.Most; index++)
        {
            if (Next($"hostpci{index}") is { } text && Device(index, text) is { } device)
                yield return device;
        }
    }

    /// <summary>The numbers at which nothing is, and nothing is about to be or to go.</summary>
    public IEnumerable<int> Free()
    {
        for (var index = 0; index < HostPci.Most; index++)
        {
            if (!Now.ContainsKey($"hostpci{index}") && !Pending.ContainsKey($"hostpci{index}"))
                yield return index;
        }
    }

    // hostpci0: 0000:05:00,pcie=1
    // [PENDING]
    // delete: hostpci0,!net1
    // hostpci1: 0000:06:00,pcie=1
    // [before-update]
    // hostpci0: 0000:04:00
    public static VmLines Parse(string text)
    {
        var (now, pending, deleted) = (new Dictionary<string, string>(StringComparer.Ordinal), new Dictionary<string, string>(StringComparer.Ordinal), new List<string>());
        var section = (Dictionary<string, string>?)now;
        foreach (var line in text.EnumerateLines())
        {
            if (line.IsWhiteSpace() || line[0] == '#')
                continue;
            if (VmConfig.IsHeader(line.TrimEnd()))
            {
                section = line.TrimEnd().Equals("[PENDING]", StringComparison.OrdinalIgnoreCase) ? pending : null;
                continue;
            }
            if (section is null || line.IndexOf(':') is not (> 0 and var colon))
                continue;
            var (key, value) = (line[..colon].ToString(), line[(colon + 1)..].Trim().ToString());
            if (section == pending && key == "delete")
                deleted.AddRange(value.Split([',', ' ', ';'], StringSplitOptions.RemoveEmptyEntries).Select(k => k.TrimStart('!')));
            else
                section[key] = value;
        }
        return new(now, pending, deleted);
    }

    static HostPci? Device(int index, string text)
    {
        try
        {
            return HostPci.Parse(index, text);
        }
        catch (NotProxmox)
        {
            return null;
        }
    }
}
