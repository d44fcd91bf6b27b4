using System.Text;
using GpuHandoff.Checks;
using GpuHandoff.Formats;
using GpuHandoff.Machines;

namespace GpuHandoff.Screen;

/// <summary>Everything that the survey knows, for eyes: <c>status --verbose</c>.</summary>
static class MachineTable
{
    static readonly string[] _columns =
        ["function", "driver", "override", "group", "power", "irqs", "reset methods", "BARs", "what"];

    public static string Of(Machine machine)
    {
        var text = new StringBuilder();
        foreach (var gpu in machine.Gpus)
        {
            text.Append(gpu).Append('\n');
            if (gpu.Uuid is { } uuid)
                text.Append("uuid ").Append(uuid).Append('\n');
            Table(text, [_columns, .. gpu.Functions.Concat(gpu.Neighbours).Select(f => Row(f, gpu))]);
            if (machine.HomeOf(gpu) is { Returned: true } back)
                text.Append("left to be started: ").AppendJoin(", ", back.Stopped.Select(s => s.Say())).Append('\n');
            else if (machine.HomeOf(gpu) is { } home)
                text.Append("away from ").AppendJoin(", ", home.Functions.Select(f => $"{f.Function} {f.Owner}")).Append('\n');
            if (machine.LoanOf(gpu) is { } loan)
                text.Append("lent to ").Append(loan).Append('\n');
            if (machine.WedgeOf(gpu) is { } wedge)
                text.Append("stuck in ").Append(wedge.Call).Append('\n');
            text.Append('\n');
        }
        Table(text, [.. Facts(machine)]);
        return text.ToString();
    }

    /// <summary>Columns as wide as their widest cell, two spaces apart.</summary>
    static void Table(StringBuilder text, IReadOnlyList<string[]> rows) => Columns(text, rows, "");

    public static void Columns(StringBuilder text, IReadOnlyList<string[]> rows, string indent)
    {
        if (rows is [])
            return;
        // A name with a newline in it is no second row.
        rows = [.. rows.Select(row => row.Select(PlainText.Line).ToArray())];
        var widths = Enumerable.Range(0, rows[0].Length).Select(i => rows.Max(row => row[i].Length)).ToArray();
        foreach (var row in rows)
        {
            var line = indent + string.Join("  ", row.Select((cell, i) => cell.PadRight(widths[i])));
            text.Append(line.TrimEnd()).Append('\n');
        }
    }

    static string[] Row(PciFunction function, Gpu gpu) =>
    [
        function.Address.ToString(),
        function.Owner.Driver ?? "-",
        function.Owner.Only ?? "-",
        function.Group?.ToString() ?? "-",
        function.PowerState ?? "-",
        function.Interrupts.ToString(),
        function.ResetMethods is [] ? "-" : string.Join(' ', function.ResetMethods),
        function.Bars is [] ? "-" : string.Join(' ', function.Bars.Select(b => $"{b.Index}:{Size(b.Size)}")),
        $"{function.Name ?? function.Id.ToString()}, {function.Class.Say()}"
            + (function.BootVga == true ? ", boot display" : "")
            + (gpu.Neighbours.Contains(function) ? ", neighbour in the group" : ""),
    ];

    static IEnumerable<string[]> Facts(Machine machine)
    {
        yield return ["kernel", machine.Release];
        yield return ["iommu", machine.IommuIsOn ? "on" : "off"];
        yield return ["nvidia", machine.Nvidia?.ToString() ?? "not loaded"];
        foreach (var module in NvidiaStack.TopDown.Reverse().Append("vfio_pci").Select(machine.Module)
            .Where(m => m.State != ModuleState.Absent))
        {
            yield return ["module", $"{module.Name} {Word(module.State)}, {module.RefCount?.ToString() ?? "uncounted"} users and dependants"
                + (module.Holders is [] ? "" : $" ({string.Join(", ", module.Holders)})")
                + (module.Parameters is [] ? "" : $", {string.Join(' ', module.Parameters)}")];
        }
        if (machine.VfioIds is not [])
            yield return ["vfio ids", string.Join(' ', machine.VfioIds)];
        foreach (var card in machine.DrmCards)
            yield return ["drm", $"{string.Join(' ', card.Nodes)} of {card.Function}"];
        foreach (var buffer in machine.FrameBuffers)
            yield return ["fb", $"{buffer.Name} {buffer.Driver}{(buffer.Function is { } function ? $" of {function}" : "")}{(buffer.Firmware is { } device ? $", by {device}" : "")}"];
        foreach (var console in machine.Consoles)
            yield return ["console", $"{console.Number} {console.Name}{(console.Bound ? ", bound" : "")}"];
        foreach (var user in machine.Users)
            yield return ["user", user.ToString()];
    }

    static string Word(ModuleState state) => state switch
    {
        ModuleState.BuiltIn => "built in",
        ModuleState.Loading => "being loaded",
        ModuleState.Unloading => "being unloaded",
        _ => "loaded",
    };

    static string Size(ulong bytes) => bytes switch
    {
        >= 1UL << 30 => $"{bytes >> 30}G",
        >= 1UL << 20 => $"{bytes >> 20}M",
        >= 1UL << 10 => $"{bytes >> 10}K",
        _ => $"{bytes}B",
    };
}
