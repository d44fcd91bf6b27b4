using System.Globalization;
using System.Text;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

public sealed partial class SimulatedKernel
{
    /// <summary>
    /// Everything that a hand-over could change, as text: two equal texts are one unchanged machine. What has another
    /// number after each load (nvidia-uvm's major, i2c adapters) is told by what it belongs to.
    /// </summary>
    /// <param name="butModules">
    /// Modules to leave out, with what only they need: a vfio-pci that was loaded on the way and stays is no change to
    /// everyone.
    /// </param>
    public string Describe(params string[] butModules)
    {
        var text = new StringBuilder();
        foreach (var device in Bus.Devices)
        {
            text.Append(CultureInfo.InvariantCulture, $"{device.Address} driver={device.Driver ?? "-"} override={device.Override ?? "-"}");
            text.Append(CultureInfo.InvariantCulture, $" power={device.PowerControl} d3cold={(device.D3ColdAllowed ? 1 : 0)}");
            text.Append(CultureInfo.InvariantCulture, $" reset={string.Join(',', device.ResetMethods)} minor={device.Minor?.ToString() ?? "-"}");
            text.Append(CultureInfo.InvariantCulture, $" users={device.UsageCount} sound={device.SoundCard?.ToString() ?? "-"}");
            text.Append(CultureInfo.InvariantCulture, $" bars={string.Join(',', device.Resources.Index().Where(bar => bar.Item.End > bar.Item.Start).Select(bar => $"{bar.Index}:{(bar.Item.End - bar.Item.Start + 1) >> 10}K"))}");
            text.Append(CultureInfo.InvariantCulture, $" drm={string.Join(',', Drm.Of(device).Select(CardText).DefaultIfEmpty("-"))}\n");
        }
        var left = WithoutWhatTheyNeed(butModules);
        foreach (var module in Modules.Loaded.Where(module => !left.Contains(module.File.Module)).OrderBy(module => module.File.Module, StringComparer.Ordinal))
        {
            var references = Modules.Users(module) + Modules.DependantsOf(module).Count(other => !left.Contains(other.File.Module));
            var parameters = string.Concat(module.Parameters.OrderBy(parameter => parameter.Key, StringComparer.Ordinal).Select(parameter => $" {parameter.Key}={parameter.Value}"));
            text.Append(CultureInfo.InvariantCulture, $"module {module.File.Module} {module.State} refcnt={references}{parameters}\n");
        }
        foreach (var driver in Bus.Drivers.Where(driver => driver.DynamicIds.Count > 0))
            text.Append(CultureInfo.InvariantCulture, $"ids {driver.Name} {string.Join(' ', driver.DynamicIds.Order().Select(id => $"{id.Vendor:x4}:{id.Device:x4}"))}\n");
        foreach (var (path, node) in Nodes.All.Where(pair => IsLasting(pair.Value)))
            text.Append(CultureInfo.InvariantCulture, $"node {path} {MajorText(path, node)}:{node.Minor} {Convert.ToString(node.Mode, 8)} {node.Owner}:{node.Group}\n");
        foreach (var device in Bus.Devices.Where(device => device.Persistent))
            text.Append(CultureInfo.InvariantCulture, $"persistent {device.Address}\n");
        foreach (var device in Bus.Devices.Where(device => device.Draining))
            text.Append(CultureInfo.InvariantCulture, $"draining {device.Address}\n");
        foreach (var unit in Systemd.Units)
            text.Append(CultureInfo.InvariantCulture, $"unit {unit.Name} {unit.State}\n");
        foreach (var container in Containers.All)
            text.Append(CultureInfo.InvariantCulture, $"container {container.Name.Kind} {container.Name.Id} {(container.IsRunning ? "running" : "stopped")}\n");
        text.Append(CultureInfo.InvariantCulture, $"console {Consoles.Owner}\n");
        foreach (var fb in Consoles.Framebuffers)
            text.Append(CultureInfo.InvariantCulture, $"framebuffer {fb.Index} {fb.Name} {fb.Device.Address}\n");
        if (Consoles.Firmware is { } picture)
            text.Append(CultureInfo.InvariantCulture, $"firmware {picture.Name} {(picture.Bound ? "bound" : "unbound")} {picture.Device.Address}\n");
        return text.ToString();

        static bool IsLasting(DeviceNode node) => node.Major != 89;

        string CardText(DrmCard card) => card.Device.Driver is null || (card.Module == "nvidia_drm" && card.Device.Driver != "nvidia")
            ? $"orphan-{card.Module}"
            : $"{card.Module}{(card.Modeset ? "-modeset" : "")}";
    }

    string MajorText(string path, DeviceNode node) => path.StartsWith("/dev/nvidia-uvm", StringComparison.Ordinal)
        ? Modules.Find("nvidia_uvm") is not null && node.Major == UvmMajor ? "uvm" : "stale"
        : node.Major.ToString();

    HashSet<string> WithoutWhatTheyNeed(string[] modules)
    {
        var left = new HashSet<string>(modules.Select(Simulation.Modules.Normal));
        while (true)
        {
            // What a left-out module needs is left out too, unless somebody else needs it.
            var more = Modules.Loaded.Where(module => left.Contains(module.File.Module)).SelectMany(module => module.File.Needs)
                .Where(need => !left.Contains(need) && Modules.Find(need) is { } needed
                    && Modules.DependantsOf(needed).All(other => left.Contains(other.File.Module))).ToList();
            if (more.Count == 0)
                return left;
            left.UnionWith(more);
        }
    }
}
