using System.Globalization;
using System.Text;
using GpuHandoff.Kernel;
using GpuHandoff.Proxmox;

namespace GpuHandoff.Simulation;

/// <summary>
/// <c>qm set VMID --KEY VALUE … --delete KEY,KEY</c>: all values are checked first, then the file is written under the VM's
/// lock. Of a VM that runs, what cannot be changed at once waits in [PENDING].
/// </summary>
/// <remarks>qemu-server, PVE/API2/Qemu.pm:$update_vm_api; PVE/QemuServer.pm:write_vm_config, $fast_plug_option.</remarks>
sealed class QmSet(SimulatedKernel kernel)
{
    // Perl's die of a command.
    const int Died = 255;

    static readonly string[] FastPlug = ["hookscript", "name", "onboot", "startup", "description", "tags"];

    public InstalledProgram Program => new(static _ => false, arguments => arguments is ["set", var vm, ..]
        ? Set(vm, [.. arguments.Skip(2)])
        : throw InstalledProgram.Untaught(Programs.Qm, arguments));

    ProgramResult Set(string vm, IReadOnlyList<string> options)
    {
        var (set, delete) = (new SortedDictionary<string, string>(StringComparer.Ordinal), Array.Empty<string>());
        for (var i = 0; i + 1 < options.Count; i += 2)
        {
            if (options[i] == "--delete")
                delete = options[i + 1].Split(',');
            else
                set.Add(options[i][2..], options[i + 1]);
        }
        if (kernel.Proxmox.Config(vm) is not { } text)
            return new(Died, $"Configuration file 'nodes/{kernel.HostName}/qemu-server/{vm}.conf' does not exist");
        if (set.Select(s => Wrong(s.Key, s.Value)).FirstOrDefault(w => w is not null) is { } wrong)
            return new(Died, $"400 Parameter verification failed.\n{wrong}");
        if (VmConfig.Parse(text).Lock is { } word)
            return new(Died, $"VM is locked ({word})");
        if (kernel.Proxmox.IsLocked(vm))
            return new(Died, $"trying to acquire lock...\ncan't lock file '/var/lock/qemu-server/lock-{vm}.conf' - got timeout");

        var config = ConfigText.Parse(text);
        var runs = kernel.Proxmox.Qemu(vm) is not null;
        foreach (var key in delete)
        {
            config.Pending.Remove(key);
            if (!runs || FastPlug.Contains(key))
                config.Main.Remove(key);
            else if (config.Main.ContainsKey(key))
                config.Deleted.Add(key);
        }
        foreach (var (key, value) in set)
        {
            config.Deleted.Remove(key);
            if (!runs || FastPlug.Contains(key))
                config.Main[key] = value;
            else
                config.Pending[key] = value;
        }
        kernel.Proxmox.Write(vm, config.ToString());
        return new(0, $"update VM {vm}: {string.Join(' ', options.Select(o => o.StartsWith("--", StringComparison.Ordinal) ? o[1..] : o))}");
    }

    string? Wrong(string key, string value)
    {
        if (key == "hookscript")
        {
            // pve-guest-common, PVE/GuestHelpers.pm:check_hookscript: -f and -x follow links.
            if (value.Split(':', 2) is not ["local", var name] || !name.StartsWith("snippets/", StringComparison.Ordinal))
                return $"hookscript: storage '{value.Split(':')[0]}' does not exist";
            var path = new SysPath($"/var/lib/vz/{name}");
            for (var i = 0; i < 8 && kernel.Link(path) is { } to; i++)
                path = new(to);
            return kernel.StatusOf(path)?.IsRunnable() == true ? null : $"hookscript: script '{name}' does not exist or is not executable";
        }
        if (key.StartsWith("hostpci", StringComparison.Ordinal))
        {
            try
            {
                _ = HostPci.Parse(int.Parse(key["hostpci".Length..], CultureInfo.InvariantCulture), value);
            }
            catch (NotProxmox trouble)
            {
                return $"{key}: invalid format - {trouble.Message}";
            }
        }
        return null;
    }

    /// <summary>A configuration as Proxmox writes it: the description first, then the keys in order, then the other sections.</summary>
    sealed class ConfigText
    {
        public SortedDictionary<string, string> Main { get; } = new(StringComparer.Ordinal);
        public SortedDictionary<string, string> Pending { get; } = new(StringComparer.Ordinal);
        public SortedSet<string> Deleted { get; } = new(StringComparer.Ordinal);
        readonly StringBuilder description = new();
        readonly StringBuilder rest = new();

        public static ConfigText Parse(string text)
        {
            var config = new ConfigText();
            var section = "";
            foreach (var line in text.Split('\n', StringSplitOptions.RemoveEmptyEntries))
            {
                if (line[0] == '[')
                    section = line;
                if (section is not ("" or "[PENDING]"))
                    config.rest.Append(line).Append('\n');
                else if (line[0] == '#')
                    config.description.Append(line).Append('\n');
                else if (line.Split(": ", 2) is [var key, var value])
                {
                    if (section == "")
                        config.Main[key] = value;
                    else if (key == "delete")
                        config.Deleted.UnionWith(value.Split(','));
                    else
                        config.Pending[key] = value;
                }
            }
            return config;
        }

        public override string ToString()
        {
            var text = new StringBuilder().Append(description);
            foreach (var (key, value) in Main)
                text.Append(CultureInfo.InvariantCulture, $"{key}: {value}\n");
            if (Pending.Count + Deleted.Count > 0)
            {
                text.Append("\n[PENDING]\n");
                if (Deleted.Count > 0)
                    text.Append(CultureInfo.InvariantCulture, $"delete: {string.Join(',', Deleted)}\n");
                foreach (var (key, value) in Pending)
                    text.Append(CultureInfo.InvariantCulture, $"{key}: {value}\n");
            }
            if (rest.Length > 0)
                text.Append('\n').Append(rest);
            return text.ToString();
        }
    }
}
