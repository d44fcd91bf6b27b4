namespace GpuHandoff.Proxmox;

/// <summary>Text of a Proxmox file that is not what it should be: Proxmox itself warns and goes on without it.</summary>
public sealed class NotProxmox(string message) : Exception(message);

/// <summary>Proxmox's comma-separated properties, as in <c>host=0000:05:00,pcie=1</c>.</summary>
/// <remarks>pve-common, JSONSchema.pm:parse_property_string. Spaces belong to the value: nothing is trimmed.</remarks>
static class PropertyText
{
    // 0000:05:00,pcie=1,x-vga=1
    // node=pve1,path=0000:05:00,id=10de:2684
    /// <summary>Keys and values.</summary>
    /// <param name="text">The properties.</param>
    /// <param name="unnamed">The key of a part without one; null: there is none.</param>
    /// <exception cref="NotProxmox">A key twice, or a part without a key or without a value.</exception>
    public static Dictionary<string, string> Parse(string text, string? unnamed)
    {
        var found = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var part in text.Split(',').Where(p => !string.IsNullOrWhiteSpace(p)))
        {
            var equals = part.IndexOf('=');
            var (key, value) = equals < 0 ? (unnamed, part) : (part[..equals], part[(equals + 1)..]);
            if (key is null)
                throw new NotProxmox($"\"{part}\" has no key");
            if (key is "" || value is "")
                throw new NotProxmox($"\"{part}\" is no key=value");
            if (!found.TryAdd(key, value))
                throw new NotProxmox($"{key} is there twice");
        }
        return found;
    }

    /// <summary>1, on, yes and true, in capitals too, and their opposites.</summary>
    /// <remarks>pve-common, JSONSchema.pm:parse_boolean.</remarks>
    /// <exception cref="NotProxmox">It is neither.</exception>
    public static bool Flag(string key, string value) => value.ToLowerInvariant() switch
    {
        "1" or "on" or "yes" or "true" => true,
        "0" or "off" or "no" or "false" => false,
        _ => throw new NotProxmox($"{key}={value} is no boolean: take 1 or 0"),
    };
}
