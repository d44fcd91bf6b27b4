using GpuHandoff.Goals;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>/proc, made from the models (kernel/module/procfs.c, kernel-open/nvidia/nv-procfs.c, fs/proc/base.c).</summary>
sealed class ProcTree(SimulatedKernel kernel)
{
    public Folder Root => new(Files);

    IEnumerable<(string, Entry)> Files()
    {
        yield return ("asound", Dir(() => kernel.Bus.Devices.Where(device => device.SoundCard is not null)
            .Select(device => ($"card{device.SoundCard}", (Entry)Dir(() => [("pcm3p", Dir(() => [("sub0", Dir(() =>
                [("status", Text(() => Substream((uint)device.SoundCard!.Value)))]))]))])))));
        yield return ("cmdline", Text(() => kernel.CommandLine));
        yield return ("devices", Text(MajorNumbers));
        yield return ("fb", Text(() => Lines(kernel.Consoles.Framebuffers.Select(fb => $"{fb.Index} {fb.Name}"))));
        yield return ("iomem", Text(IoMem));
        yield return ("locks", Text(() => Lines(kernel.Files.Locks.Select((held, i) => $"{i + 1}: {held}"))));
        yield return ("modules", Text(() => Lines(kernel.Modules.Loaded.Select(ModuleLine))));
        yield return ("self", kernel.Ourselves is { } ourselves
            ? new LinkTo(ourselves.Pid.ToString())
            : Dir(static () => [("ns", Dir(() =>
            [
                ("pid", new HeldFile(SimulatedProcess.HostPidNamespace, null)), ("mnt", new HeldFile(SimulatedProcess.HostMountNamespace, null)),
            ]))]));
        yield return ("stat", Text(() => $"cpu  0 0 0 0 0 0 0 0 0 0\nctxt 4211\nbtime {kernel.BootedAt.ToUnixTimeSeconds()}\nprocesses 4211"));
        yield return ("sys", Dir(() => [("kernel", Dir(() =>
        [
            ("hostname", Text(() => kernel.HostName)),
            ("osrelease", Text(() => kernel.Release)),
            ("random", Dir(() => [("boot_id", Text(() => kernel.BootId))])),
        ]))]));
        if (kernel.Modules.Find("nvidia") is not null)
            yield return ("driver", Dir(() => [("nvidia", Dir(NvidiaFolder))]));
        foreach (var process in kernel.Processes.Running)
            yield return (process.Pid.ToString(), Dir(() => Process(process)));
    }

    /// <summary>kernel/module/procfs.c:m_show: <c>nvidia 11685888 3 nvidia_uvm,nvidia_modeset, Live 0x0000000000000000 (OE)</c></summary>
    string ModuleLine(LoadedModule module)
    {
        var dependants = string.Concat(kernel.Modules.DependantsOf(module).Select(other => other.File.Module + ","));
        var (count, users) = kernel.Modules.CannotUnload
            ? ("-", "-")
            : (kernel.Modules.RefCount(module).ToString(), dependants.Length > 0 ? dependants : "-");
        var state = module.State switch
        {
            "going" => "Unloading",
            "coming" => "Loading",
            _ => "Live",
        };
        var taint = module.File.Taint.Length > 0 ? $" ({module.File.Taint})" : "";
        return $"{module.File.Module} {module.File.Size} {count} {users} {state} 0x0000000000000000{taint}";
    }

    string MajorNumbers()
    {
        List<string> lines = ["Character devices:", "  1 mem", "  4 tty", " 10 misc", " 29 fb", " 89 i2c", "116 alsa"];
        if (kernel.Modules.Find("nvidia") is not null)
            lines.AddRange(["195 nvidia", "195 nvidiactl"]);
        if (kernel.Modules.Find("nvidia_modeset") is not null)
            lines.Add("195 nvidia-modeset");
        lines.Add("226 drm");
        if (kernel.Modules.Find("vfio") is not null)
            lines.Add("240 vfio");
        if (kernel.Modules.Find("nvidia_uvm") is not null)
            lines.Add($"{kernel.UvmMajor,3} nvidia-uvm");
        lines.AddRange(["", "Block devices:", "259 blkext"]);
        return Lines(lines);
    }

    /// <summary>kernel/resource.c:r_show: two blanks for each level, and zeros for who is not root.</summary>
    string IoMem()
    {
        var lines = new List<string> { $"{Range(0x1000, 0x9ffff)} : System RAM" };
        foreach (var device in kernel.Bus.Devices)
        {
            var picture = kernel.Consoles.Firmware is { } firmware && firmware.Device.Address == device.Address ? firmware : null;
            var owner = device.Driver;
            foreach (var (index, (start, end, flags)) in device.Hardware.Resources.Index())
            {
                // IORESOURCE_IO is in /proc/ioports.
                if (end == 0 || (flags & 0x100) != 0)
                    continue;
                lines.Add($"{Range(start, end)} : {device.Address}");
                if (picture is not null && index == 1)
                {
                    // drivers/firmware/sysfb_simplefb.c gives the platform device the range BOOTFB; efifb and vesafb name their own.
                    var depth = "  ";
                    if (picture.Driver == "simple-framebuffer")
                    {
                        lines.Add($"{depth}{Range(start, start + 0x7fffff)} : BOOTFB");
                        depth += "  ";
                    }
                    if (picture.Bound)
                        lines.Add($"{depth}{Range(start, start + 0x7fffff)} : {picture.Claim}");
                }
                else if (owner is not null && index == 0)
                {
                    lines.Add($"  {Range(start, end)} : {owner}");
                }
            }
        }
        return Lines(lines);
    }

    string Range(ulong start, ulong end) => kernel.HidesMemory ? "00000000-00000000" : $"{start:x8}-{end:x8}";

    IEnumerable<(string, Entry)> NvidiaFolder() =>
    [
        ("version", Text(() => $"""
            NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {kernel.Nvidia.Option.Version}  Release Build  (dvs-builder@U22-I3-AE18-07-3)
            GCC version:  gcc version 14.2.0 (Debian 14.2.0-19)
            """)),
        // nv-procfs.c:nv_procfs_add_gpu: the folder is there exactly while the GPU is bound.
        ("gpus", Dir(() => kernel.Bus.Devices.Where(device => device.Driver == "nvidia").Select(device =>
            (device.Address.ToString(), (Entry)Dir(() => [("information", Text(() => Information(device)))]))))),
    ];

    /// <summary>nv-procfs.c:nv_procfs_read_gpu_info; the UUID is unknown until the first open.</summary>
    string Information(PciDevice device)
    {
        var uuid = device.UsageCount > 0 || device.Persistent
            ? Nvidia.UuidOf(device)
            : Nvidia.DefaultUuid;
        return $"Model: \t\t {device.Hardware.Model}\nIRQ:   \t\t 130\nGPU UUID: \t {uuid}\nVideo BIOS: \t 95.02.3c.40.f8\n"
            + $"Bus Type: \t PCIe\nDMA Size: \t 47 bits\nDMA Mask: \t 0x7fffffffffff\nBus Location: \t {device.Address}\n"
            + $"Device Minor: \t {device.Minor}\nGPU Firmware: \t {kernel.Nvidia.Option.Version}\nGPU Excluded:\t No\n";
    }

    IEnumerable<(string, Entry)> Process(SimulatedProcess process) =>
    [
        ("cgroup", Text(() => $"0::{process.Cgroup}")),
        ("cmdline", Text(() => string.Concat(process.CommandLine.Select(word => word + "\0")))),
        ("comm", Text(() => process.Name)),
        ("environ", Text(() => string.Concat(process.Environment.Select(entry => entry + "\0")))),
        .. process.Exe is { } exe ? [("exe", new HeldFile(exe, null))] : (IEnumerable<(string, Entry)>)[],
        ("fd", Descriptors(process, static file => file.Thread is null)),
        ("fdinfo", DescriptorInfo(process, static file => file.Thread is null)),
        ("map_files", Dir(() => Mappings(process).Select(mapped => (mapped.Range, (Entry)new HeldFile(mapped.Path, mapped.Node))))),
        ("maps", Text(() => Lines(Mappings(process).Select(mapped => $"{mapped.Range} rw-s 00000000 {mapped.File,-26} {mapped.Path}")
            .Append("7ffd5c1e3000-7ffd5c204000 rw-p 00000000 00:00 0                          [stack]")))),
        ("ns", Dir(() => [("pid", new HeldFile(process.PidNamespace, null)), ("mnt", new HeldFile(process.MountNamespace, null))])),
        ("stat", Text(() => $"{process.Pid} ({process.Name}) {(process.IsUninterruptible ? 'D' : 'S')} {process.Parent} {process.Pid} {process.Pid}"
            + $" 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 {process.Started} 0 0")),
        ("task", Dir(() => process.Threads.Select(thread => (thread.Id.ToString(), (Entry)Dir(() =>
        [
            ("comm", Text(() => thread.Name)),
            // A thread has the process's table, or one of its own.
            ("fd", Descriptors(process, file => file.Thread is null || file.Thread == thread.Id)),
            ("fdinfo", DescriptorInfo(process, file => file.Thread is null || file.Thread == thread.Id)),
            // fs/proc/array.c:task_cpus_allowed
            ("status", Text(() => $"Name:\t{thread.Name}\nCpus_allowed_list:\t{CpuList.Say(thread.Processors ?? kernel.OnlineProcessors)}\nMems_allowed_list:\t0")),
        ]))))),
        ("status", Text(() => process.HasNoStatus ? null : $"Name:\t{process.Name}\nUmask:\t0022\nUid:\t{process.User}\t{process.User}\t{process.User}\t{process.User}"
            + $"\nGid:\t{process.User}\t{process.User}\t{process.User}\t{process.User}")),
    ];

    /// <summary>sound/core/pcm.c:snd_pcm_substream_proc_status_read: the process that opened the substream, through whichever table.</summary>
    string Substream(uint card) => kernel.Processes.Running
        .FirstOrDefault(process => process.Open.Any(file => !file.IsOnlyAPath && file.Node is { Major: 116 } node && node.Minor == card * 32 + 16)) is { } owner
            ? $"state: RUNNING\nowner_pid   : {owner.Pid}\ntrigger_time: 4211.000000000\ntstamp      : 0.000000000"
            : "closed";

    /// <summary>The first copy of descriptor 7 is 10007.</summary>
    public const int Copies = 10_000;

    static Folder Descriptors(SimulatedProcess process, Func<OpenNode, bool> has) => Dir(() => process.Open
        .Where(file => has(file) && file is { IsOnlyMapped: false, IsInFlight: false })
        .SelectMany(file => Enumerable.Range(0, file.Descriptors).Select(copy => ((file.Number + Copies * copy).ToString(), (Entry)new HeldFile(file.Path, file.Node)))));

    /// <summary>fs/proc/fd.c:seq_show: the flags in octal; O_PATH is 010000000.</summary>
    static Folder DescriptorInfo(SimulatedProcess process, Func<OpenNode, bool> has) => Dir(() => process.Open
        .Where(file => has(file) && file is { IsOnlyMapped: false, IsInFlight: false })
        .Select(file => (file.Number.ToString(), (Entry)Text(() => $"pos:\t0\nflags:\t{(file.IsOnlyAPath ? "012000000" : "02100002")}\nmnt_id:\t26\nino:\t{430 + file.Number}"))));

    /// <summary>fs/proc/task_mmu.c:show_map_vma: the device there is the file system's, not the node's.</summary>
    static IEnumerable<(string Range, string File, string Path, DeviceNode? Node)> Mappings(SimulatedProcess process) =>
    [
        ("7f1c90000000-7f1c90200000", "fe:00 1835029", "/usr/lib/x86_64-linux-gnu/libc.so.6", null),
        .. process.Open.Where(file => file.IsOnlyMapped)
            .Select(file => ($"7f1c8a{file.Number:x3}000-7f1c8b{file.Number:x3}000", $"00:05 {430 + file.Number}", file.Path, file.Node)),
    ];

    static Folder Dir(Func<IEnumerable<(string, Entry)>> children) => new(children);

    static TextFile Text(Func<string?> read) => new(read);

    static string Lines(IEnumerable<string> lines) => string.Join('\n', lines);
}
