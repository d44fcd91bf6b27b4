using System.Reflection;
using System.Text;
using System.Text.Json;
using GpuHandoff.Formats;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Libvirt;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Proxmox;
using GpuHandoff.Simulation;
using GpuHandoff.Survey;
using GpuHandoff.Tests;
using Xunit.Abstractions;

namespace GpuHandoff.Core.Tests.Survey;

/// <summary>Every parser with malformed text: a value or a plain no, and never another exception. GARBAGE_SEED plays a seed again.</summary>
public class ReadingGarbage(ITestOutputHelper output)
{
    const int Times = 4000;

    static readonly int _first =
        int.TryParse(Environment.GetEnvironmentVariable("GARBAGE_SEED"), out var seed) ? seed : 1;

    public static TheoryData<string> Parsers => [.. All.Keys];

    static Dictionary<string, (string Sample, Action<string> Parse)> All { get; } = new()
    {
        ["/proc/modules"] = (
            "nvidia_uvm 4890624 0 - Live 0x0000000000000000 (O)\nnvidia 60620800 2 nvidia_uvm,nvidia_modeset, Live 0x0000000000000000 (O)\nnvidia 14299136 - - Live 0xffffffffc0400000 (O)\n",
            text => ModuleList.Parse(text).Sum(m => m.Users() + m.Holders.Length)),
        ["/proc/devices"] = ("Character devices:\n195 nvidia\n234 nvidia-uvm\n\nBlock devices:\n259 blkext\n", text => CharDevices.Major(text, "nvidia-uvm")),
        ["resource"] = (
            "0x00000000fd000000 0x00000000fdffffff 0x0000000000040200\n0x0000000000000000 0x0000000000000000 0x0000000000000000\n",
            text => ResourceTable.Parse(text).ToList().ForEach(bar => bar.ToString())),
        ["nvidia version"] = (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.163.01  Release Build  (dvs)\nGCC version:  gcc\n",
            text => NvidiaProc.Version(text)?.DrmFollowsUnbind()),
        ["nvidia information"] = (
            "Model: \t\t NVIDIA GeForce RTX 4090\nGPU UUID: \t GPU-????????-????-????-????-????????????\nDevice Minor: \t 0\n",
            text => NvidiaProc.Information(text)),
        ["pci.ids"] = (
            "# a comment\n10de  NVIDIA Corporation\n\t2684  AD102 [GeForce RTX 4090]\n\t\t1043 889a  ROG\n8086  Intel\n",
            text => PciIds.Find(text, new(0x10de, 0x2684))),
        ["vfio-pci.ids"] = (
            "quiet intel_iommu=on vfio-pci.ids=10de:2684,10de:22ba\noptions vfio-pci ids=10de:2684,10de:22ba disable_vga=1\n",
            text => VfioIdList.Parse(text, text.Split('\n'))),
        ["address"] = ("10000:05:1f.7", text => PciAddress.TryParse(text, out _)),
        ["slot"] = ("10000:05:1f", text => PciAddress.TryParseSlot(text, out _, out _)),
        ["driver version"] = ("580.126.20", text => DriverVersion.TryParse(text, out _)),
        ["cgroup"] = (
            "12:devices:/lxc/107/ns\n0::/system.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope\n", text => Cgroup.Parse(text)),
        ["LXC config"] = (
            "arch: amd64\ndev0: /dev/nvidia0,mode=0666\nlxc.mount.entry: /dev/dri dev/dri none bind,optional,create=dir\nlxc.cgroup2.devices.allow = c 195:* rwm\n[old]\ndev1: /dev/nvidia1\n",
            text => LxcConfig.Parse(new(ContainerKind.Lxc, "107"), text)),
        ["systemctl show"] = (
            "Id=gpu-handoff-host@0000:01:00.0.target\nActiveState=active\nBoundBy=ollama.service jellyfin.service\n\nId=ollama.service\nActiveState=inactive\n",
            text => UnitProperties.Parse(text).ForEach(unit => UnitProperties.List(unit, "BoundBy"))),
        ["domain"] = (
            "<domain type='kvm'>\n  <name>a &amp; b</name>\n  <!-- c -->\n  <devices>\n    <hostdev mode='subsystem' type='pci' managed='yes'><source><address bus='0x05' function='1'/></source></hostdev>\n  </devices>\n</domain>\n",
            text => OrNoDomain(() => Domain.Parse(text))),
        ["environ"] = ("CUDA_MPS_PIPE_DIRECTORY=/run/mps\0PATH=/usr/bin\0CUDA_VISIBLE_DEVICES=0\0", text => MpsProcesses.Environment(text)),
        ["group"] = ("Name:\tollama\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\n", text => ProcessFiles.Group(text)),
        ["stat"] = ("4211 (a) b) S 1 4211 4211 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 2\n", text => ProcessStat.Parse(text)),
        ["status"] = ("Name:\tollama\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\n", text => ProcessFiles.User(text)),
        ["passwd"] = ("root:x:0:0:root:/root:/bin/bash\nollama:x:1000:1000::/home:/bin/sh\n", text => ProcessFiles.NameOf(1000, text)),
        ["command line"] = ("python3\0-u\0/opt/train.py\0", text => ProcessFiles.Script("python3", ProcessFiles.Plain(text))),
        ["script"] = ("python3\0-u\0/opt/train.py\0", text => ProcessFiles.Script("python3", text)),
        ["maps"] = ("7f0c1c000000-7f0c1c021000 rw-s 00000000 00:06 512                        /dev/nvidia-uvm (deleted)", text => MappedFile.TryParse(text, out _)),
        ["VM configuration"] = (
            "#a comment\nhostpci0: 0000:05:00,pcie=1,x-vga=1\nhostpci1: mapping=gpu-pool,driver=keep\nlock: backup\n[PENDING]\nhostpci0: 06:00\n",
            text => VmConfig.Parse(text).Devices.ToList().ForEach(d => d.WhyNoStart())),
        ["mappings"] = (
            "gpu-pool\n\tmap id=10de:2684,iommugroup=18,node=pve1,path=0000:05:00;0000:06:00.0\n\tmdev 0\n\n",
            text => PciMappings.Find(text, "gpu-pool")),
        ["reservations"] = ("0000:05:00.0 101 pid:4711\n0000:06:00.0 102 time:1765000000\n", text => Reservations.Parse(text)),
        ["home"] = (
            """{"bootId":"b","gpu":"0000:01:00.0","functions":[{"function":"0000:01:00.0","owner":{"driver":"nvidia","only":null}}],"modules":[{"name":"nvidia_drm","parameters":["modeset=Y"]}],"nodes":[{"path":"/dev/nvidia0","node":{"major":195,"minor":0,"mode":438,"owner":0,"group":44}}],"version":1}""",
            text => OrJsonException(() => JsonSerializer.Deserialize(Encoding.UTF8.GetBytes(text), Json.Default.Home))),
    };

    [Theory]
    [MemberData(nameof(Parsers))]
    public void A_parser_never_crashes(string parser)
    {
        output.WriteLine($"GARBAGE_SEED={_first}");
        var (sample, parse) = All[parser];
        for (var seed = _first; seed < _first + Times; seed++)
        {
            var text = new Malformed(seed).Of(sample);
            try
            {
                parse(text);
            }
            catch (Exception e)
            {
                throw new InvalidOperationException($"GARBAGE_SEED={seed}: {parser} crashed on {JsonSerializer.Serialize(text)}", e);
            }
        }
    }

    [Fact]
    public void A_look_at_a_machine_with_garbage_in_any_file_never_crashes_and_never_writes()
    {
        output.WriteLine($"GARBAGE_SEED={_first}");
        var looks = 0;
        for (var seed = _first; seed < _first + 600; seed++)
        {
            var malformed = new Malformed(seed);
            var kernel = malformed.OneOf(Hosts.All).Boot();
            var before = kernel.Describe();
            try
            {
                foreach (var target in new Target?[] { null, Target.Vfio, Target.Host })
                {
                    var machine = Surveyor.Survey(Garbler.Of(kernel, malformed), [], target, []);
                    Surveyor.Glance(Garbler.Of(kernel, malformed));
                    looks++;
                    if (target is { } wanted && Selection.Of(machine, "all") is Selection.Chosen { Gpus: var gpus })
                        Planner.Plan(machine, new(wanted, gpus), Policy.Default).ToString().ShouldNotBeEmpty();
                }
            }
            catch (KernelRefused)
            {
                // A plain no.
            }
            catch (Exception e)
            {
                throw new InvalidOperationException($"GARBAGE_SEED={seed}", e);
            }
            kernel.Calls.ShouldBeEmpty($"GARBAGE_SEED={seed}");
            kernel.Describe().ShouldBe(before);
        }
        Evidence.Record(
            "garbage in any file of /sys and /proc, and in any record or journal", "looked, planned or refused; wrote nothing",
            "a plan, a refusal, or the file and the line that cannot be read", $"{Times * All.Count} texts and {looks} looks at machines");
    }

    static void OrNoDomain(Action act)
    {
        try
        {
            act();
        }
        catch (NoDomain)
        {
            // A plain no.
        }
    }

    static void OrJsonException(Action act)
    {
        try
        {
            act();
        }
        catch (JsonException)
        {
            // With the line in it: that is what the ledger tells.
        }
    }
}

/// <summary>A kernel of whose answers now and then one is garbage.</summary>
public class Garbler : DispatchProxy
{
    IKernel? _kernel;
    Malformed? _malformed;

    internal static IKernel Of(IKernel kernel, Malformed malformed)
    {
        var proxy = Create<IKernel, Garbler>();
        (((Garbler)(object)proxy)._kernel, ((Garbler)(object)proxy)._malformed) = (kernel, malformed);
        return proxy;
    }

    protected override object? Invoke(MethodInfo? targetMethod, object?[]? args)
    {
        var answer = targetMethod!.Invoke(_kernel, BindingFlags.DoNotWrapExceptions, null, args, null);
        return answer switch
        {
            string text when _malformed!.Rarely(12) => _malformed.Of(text),
            IReadOnlyList<string> names when names.Count > 0 && _malformed!.Rarely(12) =>
                (string[])[.. names, _malformed.OneOf(names), _malformed.Of(_malformed.OneOf(names))],
            _ => answer,
        };
    }
}
