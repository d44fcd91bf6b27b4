namespace GpuHandoff.Survey;

/// <summary>What <c>systemctl show</c> says of units.</summary>
public static class UnitProperties
{
    // Id=gpu-handoff-host@0000:01:00.0.target
    // ActiveState=active
    // BoundBy=ollama.service jellyfin.service
    //
    // Id=ollama.service                                                            one block a unit, an empty line between
    public static List<Dictionary<string, string>> Parse(string text)
    {
        var units = new List<Dictionary<string, string>>();
        var unit = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var line in text.Split('\n').Append(""))
        {
            if (line.Length == 0)
            {
                if (unit.Count > 0)
                    units.Add(unit);
                unit = new(StringComparer.Ordinal);
            }
            else if (line.Split('=', 2) is [var key, var value])
            {
                unit[key] = value;
            }
        }
        return units;
    }

    public static string[] List(Dictionary<string, string> unit, string property) =>
        unit.GetValueOrDefault(property, "").Split(' ', StringSplitOptions.RemoveEmptyEntries);
}
