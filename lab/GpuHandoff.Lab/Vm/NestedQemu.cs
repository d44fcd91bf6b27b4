namespace GpuHandoff.Lab.Vm;

/// <summary>A QEMU in the guest that opens a card's group for real.</summary>
public static class NestedQemu
{
    const string PidFile = "/run/nested-qemu.pid";

    public const string ProcessId = $"cat {PidFile}";

    public const string Stop = $"p=$({ProcessId}); kill $p; while [ -e /proc/$p ]; do sleep 0.1; done";

    // A pair of FIFOs: the guest has no program that talks to a socket.
    const string Control = "/run/nested-qemu.control";

    /// <summary>Its own word on whether its processor runs.</summary>
    public const string IsRunning =
        $"echo '{{\"execute\":\"qmp_capabilities\"}}{{\"execute\":\"query-status\"}}' > {Control}.in; timeout 3 cat {Control}.out; true";

    /// <summary>Starts it, and its guest never runs an instruction; when the command has ended, the group is open.</summary>
    public static string Start(PluggedGpu gpu) => With(gpu, "-S");

    /// <summary>Starts it, and its guest runs: the firmware finds the card and has nothing to boot from.</summary>
    public static string StartRunning(PluggedGpu gpu) =>
        $"rm -f {Control}.*; mkfifo {Control}.in {Control}.out && "
        + With(gpu, $"-chardev pipe,id=control,path={Control} -mon chardev=control,mode=control");

    static string With(PluggedGpu gpu, string more) =>
        $"qemu-system-x86_64 -M q35 -accel tcg -m 128 {more} -daemonize -nodefaults -display none -pidfile {PidFile} "
        + string.Join(' ', gpu.Functions.Select(function => $"-device vfio-pci,host={function.Address}"))
        + " > /run/nested-qemu.log 2>&1 || { cat /run/nested-qemu.log >&2; exit 1; }";
}
