using System.Collections.Immutable;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>What a driver hangs below a function, by which somebody can use it: nodes, and plugged USB devices.</summary>
sealed record Attachments(ImmutableArray<NamedNode> Nodes, ImmutableArray<NamedNode> YieldingNodes, ImmutableArray<string> Plugged)
{
    const string HubClass = "09";

    static readonly string[] _soundNodes = ["controlC", "pcmC", "hwC", "midiC", "comprC"];

    public static Attachments Of(SysPath function, int? group, IKernel kernel)
    {
        var nodes = new List<string>();
        var yielding = new List<string>();
        var plugged = new List<string>();
        // One listing says which of the rest are worth a look.
        var names = kernel.List(function);
        if (names.Contains("drm"))
        {
            var drm = kernel.List(function / "drm");
            nodes.AddRange(drm.Select(name => $"/dev/dri/{name}"));
            // A DisplayPort's own adapter lies below its connector (drm_dp_helper.c:drm_dp_aux_register).
            foreach (var card in drm.Where(name => name.StartsWith("card", StringComparison.Ordinal)))
            {
                nodes.AddRange(from connector in kernel.List(function / "drm" / card)
                               where connector.StartsWith($"{card}-", StringComparison.Ordinal)
                               from name in kernel.List(function / "drm" / card / connector)
                               where IsAdapter(name)
                               select $"/dev/{name}");
            }
        }
        if (names.Contains("sound"))
        {
            foreach (var card in kernel.List(function / "sound"))
            {
                var parts = kernel.List(function / "sound" / card);
                nodes.AddRange(parts.Where(name => _soundNodes.Any(kind => name.StartsWith(kind, StringComparison.Ordinal)))
                    .Select(name => $"/dev/snd/{name}"));
                yielding.AddRange(from jack in parts
                                  where jack.StartsWith("input", StringComparison.Ordinal)
                                  from name in kernel.List(function / "sound" / card / jack)
                                  where name.StartsWith("event", StringComparison.Ordinal)
                                  select $"/dev/input/{name}");
            }
        }
        if (names.Contains("vfio-dev"))
            nodes.AddRange(kernel.List(function / "vfio-dev").Select(name => $"/dev/vfio/devices/{name}"));
        // DRM's own frame buffer; the firmware's lies one deeper, and goes whoever has it open (fbmem.c:unregister_framebuffer).
        if (names.Contains("graphics"))
            nodes.AddRange(kernel.List(function / "graphics").Select(name => $"/dev/{name}"));
        // An open adapter keeps the unbind waiting, uninterruptibly (i2c-core-base.c:i2c_del_adapter).
        nodes.AddRange(names.Where(IsAdapter).Select(name => $"/dev/{name}"));
        foreach (var bus in names.Where(name => name.StartsWith("usb", StringComparison.Ordinal) && name.AsSpan(3).IndexOfAnyExceptInRange('0', '9') < 0))
            plugged.AddRange(Below(function / bus, kernel));
        if (group is not null)
            nodes.Add($"/dev/vfio/{group}");
        return new(Numbered(nodes, kernel), Numbered(yielding, kernel), [.. plugged]);
    }

    static bool IsAdapter(string name) => name.StartsWith("i2c-", StringComparison.Ordinal);

    static ImmutableArray<NamedNode> Numbered(List<string> paths, IKernel kernel) =>
    [
        .. from path in paths
           let node = kernel.NodeAt(new(path))
           where node is not null
           select new NamedNode(path, node),
    ];

    // usb3/3-1/3-1.4: a device's folder is named by its way through the hubs, its interfaces 3-1:1.0 have a colon.
    static IEnumerable<string> Below(SysPath hub, IKernel kernel)
    {
        foreach (var name in kernel.List(hub))
        {
            if (!char.IsAsciiDigit(name[0]) || !name.Contains('-') || name.Contains(':'))
                continue;
            var device = hub / name;
            if (kernel.Read(device / "bDeviceClass") is { } code && code != HubClass)
                yield return ProcessFiles.Plain(string.Join(' ', new[] { name, kernel.Read(device / "manufacturer"), kernel.Read(device / "product") }
                    .OfType<string>()));
            foreach (var deeper in Below(device, kernel))
                yield return deeper;
        }
    }
}
