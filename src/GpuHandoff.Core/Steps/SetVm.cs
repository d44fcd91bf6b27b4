using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Proxmox;

namespace GpuHandoff.Steps;

/// <summary>
/// Lines of a VM's configuration through Proxmox's own program, all of them in one call: it holds the VM's lock meanwhile,
/// checks every value before it writes the first, and refuses where the VM is locked.
/// </summary>
/// <remarks>
/// qemu-server, PVE/API2/Qemu.pm:$update_vm_api. Of a VM that runs, hostpciN waits in [PENDING] for the next start, and the
/// hookscript counts at once (PVE/QemuServer.pm:$fast_plug_option).
/// </remarks>
public sealed record SetVm(int Vm, ImmutableArray<VmLine> Settings) : Step
{
    // A healthy pmxcfs answers in microseconds; one without its cluster may hang.
    static readonly TimeSpan _slowRead = TimeSpan.FromSeconds(5);

    // It waits 10 s for the VM's lock (PVE/AbstractConfig.pm:lock_config), and is a program in Perl.
    static readonly TimeSpan _budget = TimeSpan.FromSeconds(60);

    public override string Say() => string.Join(' ', ["qm", .. Arguments()]);

    public override Step Undo() => this with { Settings = [.. Settings.Reverse().Select(s => s.Back())] };

    public override Position Look(IKernel kernel)
    {
        if (kernel.ReadSlow(ProxmoxNode.PathOf(Vm), _slowRead) is not { } text)
            return Position.Elsewhere;
        var now = VmLines.Parse(text);
        return Settings.All(s => s.Is(now.Next(s.Key), s.To)) ? Position.There
            : Settings.All(s => s.Is(now.Next(s.Key), s.To) || s.Is(now.Next(s.Key), s.From)) ? Position.OnTheWay
            : Position.Elsewhere;
    }

    public override void Run(IKernel kernel, Limits limits) => kernel.Demand(_budget, Programs.Qm, Arguments());

    ImmutableArray<string> Arguments() =>
    [
        "set", Vm.ToString(CultureInfo.InvariantCulture),
        .. Settings.Where(s => s.To is not null).SelectMany(s => new[] { $"--{s.Key}", s.To! }),
        .. Settings.Any(s => s.To is null) ? (string[])["--delete", string.Join(',', Settings.Where(s => s.To is null).Select(s => s.Key))] : [],
    ];
}
