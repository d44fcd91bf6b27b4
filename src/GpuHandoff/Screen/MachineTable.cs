using GpuHandoff.Checks;
using GpuHandoff.Machines;
using Spectre.Console;

namespace GpuHandoff.Screen;

/// <summary>Everything that the survey knows, for eyes: <c>status --verbose</c>.</summary>
static class MachineTable
{
    const int WithoutTerminal = 160;

    public static void Print(Machine machine)
    {
        var console = AnsiConsole.Console;
        if (Console.IsOutputRedirected)
            console.Profile.Width = WithoutTerminal;

        foreach (var gpu in machine.Gpus)
        {
            var table = new Table().Title(Markup.Escape(gpu.ToString())).Border(TableBorder.Ascii2);
            table.AddColumns("function", "what", "driver", "override", "group", "power", "reset methods", "BARs", "interrupts");
            foreach (var function in gpu.Functions.Concat(gpu.Neighbours))
                table.AddRow([.. Row(function, gpu).Select(cell => new Text(cell))]);
            console.Write(table);
            if (gpu.Uuid is { } uuid)
                console.WriteLine($"uuid       {uuid}");
            if (machine.HomeOf(gpu) is { } home)
                console.WriteLine($"home       {string.Join(", ", home.Functions.Select(f => $"{f.Function} {f.Owner}"))}");
        }
        foreach (var (name, value) in Facts(machine))
            console.WriteLine($"{name,-10} {value}");
    }

    static IEnumerable<string> Row(PciFunction function, Gpu gpu) =>
    [
        function.Address.ToString(),
        $"{function.Name ?? function.Id.ToString()} ({function.Class.Say()}{(function.BootVga == true ? ", boot" : "")}{(gpu.Neighbours.Contains(function) ? ", neighbour" : "")})",
        function.Owner.Driver ?? "",
        function.Owner.Only ?? "",
        function.Group?.ToString() ?? "",
        function.PowerState ?? "",
        string.Join(' ', function.ResetMethods),
        string.Join(' ', function.Bars.Select(b => $"{b.Index}:{Size(b.Size)}")),
        function.Interrupts.ToString(),
    ];

    static IEnumerable<(string Name, string Value)> Facts(Machine machine)
    {
        yield return ("kernel", machine.Release);
        yield return ("iommu", machine.IommuIsOn ? "on" : "off");
        yield return ("nvidia", machine.Nvidia?.ToString() ?? "not loaded");
        foreach (var module in NvidiaStack.TopDown.Reverse().Append("vfio_pci").Select(machine.Module)
            .Where(m => m.State != ModuleState.Absent))
        {
            yield return ("module", $"{module.Name} {module.State}, {module.RefCount?.ToString() ?? "no"} references"
                + (module.Holders is [] ? "" : $" ({string.Join(", ", module.Holders)})")
                + (module.Parameters is [] ? "" : $", {string.Join(' ', module.Parameters)}"));
        }
        if (machine.VfioIds is not [])
            yield return ("vfio ids", string.Join(' ', machine.VfioIds));
        foreach (var card in machine.DrmCards)
            yield return ("drm", $"{string.Join(' ', card.Nodes)} of {card.Function}");
        foreach (var buffer in machine.FrameBuffers)
            yield return ("fb", $"{buffer.Name} {buffer.Driver}{(buffer.Function is { } function ? $" of {function}" : "")}");
        foreach (var console in machine.Consoles)
            yield return ("console", $"{console.Number} {console.Name}{(console.Bound ? ", bound" : "")}");
        foreach (var user in machine.Users)
            yield return ("user", user.ToString());
    }

    static string Size(ulong bytes) => bytes switch
    {
        >= 1UL << 30 => $"{bytes >> 30}G",
        >= 1UL << 20 => $"{bytes >> 20}M",
        _ => $"{bytes >> 10}K",
    };
}
