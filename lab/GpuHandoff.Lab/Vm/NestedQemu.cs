namespace GpuHandoff.Lab.Vm;

/// <summary>A QEMU in the guest that opens a card's group for real; its own guest never runs an instruction.</summary>
public static class NestedQemu
{
    const string PidFile = "/run/nested-qemu.pid";

    public const string ProcessId = $"cat {PidFile}";

    public const string Stop = $"p=$({ProcessId}); kill $p; while [ -e /proc/$p ]; do sleep 0.1; done";

    /// <summary>Starts it; when the command has ended, the group is open.</summary>
    public static string Start(PluggedGpu gpu) =>
        $"qemu-system-x86_64 -M q35 -accel tcg -m 128 -S -daemonize -nodefaults -display none -pidfile {PidFile} "
        + string.Join(' ', gpu.Functions.Select(function => $"-device vfio-pci,host={function.Address}"))
        + " > /run/nested-qemu.log 2>&1 || { cat /run/nested-qemu.log >&2; exit 1; }";
}
