using System.Globalization;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Survey;

/// <summary>Who has a function open at this moment: looked at before a reset or an unbind that nobody planned for.</summary>
public static class Holding
{
    /// <summary>A process with a node of one of the functions open; null: nobody.</summary>
    public static GpuUser? Of(IEnumerable<PciAddress> functions, IKernel kernel)
    {
        var nodes = functions.SelectMany(f => Surveyor.NodesOf(f, kernel)).ToList();
        if (nodes.Count == 0)
            return null;
        foreach (var name in kernel.List(Sys.Proc))
        {
            if (!int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var pid))
                continue;
            var fds = Sys.Proc / name / "fd";
            foreach (var fd in kernel.List(fds))
            {
                if (kernel.NodeAt(fds / fd) is { } node && nodes.Exists(n => n.Node.IsSameDevice(node)))
                {
                    return new(
                        pid, kernel.Read(Sys.Proc / name / "comm") ?? "?", kernel.Link(fds / fd) ?? $"{node.Major}:{node.Minor}", node);
                }
            }
        }
        return null;
    }
}
