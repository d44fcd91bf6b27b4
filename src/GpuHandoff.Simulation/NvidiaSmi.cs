using GpuHandoff.Kernel;

namespace GpuHandoff.Simulation;

/// <summary>nvidia-smi, as far as a hand-over asks it: persistence mode and drain state.</summary>
/// <param name="drains">Whether the driver lets this card be drained: NVML promises it for some models only.</param>
sealed class NvidiaSmi(SimulatedKernel kernel, bool drains)
{
    public InstalledProgram Program => new(arguments => arguments is [.., "-q"] or ["--query-gpu=persistence_mode" or "--query-gpu=uuid", ..], Run);

    ProgramResult Run(IReadOnlyList<string> arguments) => arguments switch
    {
        ["--query-gpu=persistence_mode", "--format=csv,noheader", "-i", var gpu] => On(gpu, device =>
            new(0, device.Persistent || KeptBy(device) is not null ? "Enabled" : "Disabled")),
        ["--query-gpu=uuid", "--format=csv,noheader", "-i", var gpu] => On(gpu, device => new(0, Nvidia.UuidOf(device))),
        ["-i", var gpu, "-pm", "0" or "1"] => On(gpu, device =>
        {
            var on = arguments[^1] == "1";
            // nvidia-smi(1), -pm: where the daemon runs it is asked, and it opens or closes that one card.
            if (Daemon is not { } daemon)
                device.Persistent = on;
            else if (!on)
                KeptBy(device)?.Dispose();
            else if (KeptBy(device) is null)
                kernel.OpenWhatIsThere([$"/dev/nvidia{device.Minor}"], daemon);
            if (!on)
                device.Persistent = false;
            return new(0, $"{(on ? "Enabled" : "Disabled")} persistence mode for GPU 0000{gpu}.\nAll done.");
        }),
        ["drain", "-p", var gpu, "-q"] => On(gpu, device =>
            new(0, $"The current drain state of GPU 0000{gpu} is: {(device.Draining ? "draining" : "not draining")}.")),
        ["drain", "-p", var gpu, "-m", "1"] => On(gpu, device =>
        {
            if (!drains)
                return new(3, $"Failed to set GPU 0000{gpu} drain state: Not Supported");
            // gpu_mgr.c:gpumgrModifyGpuDrainState: a second one says NV_ERR_IN_USE.
            if (device.Draining)
                return new(19, $"Failed to set GPU 0000{gpu} drain state: In use by another client");
            device.Draining = true;
            return new(0, $"Successfully set GPU 0000{gpu} drain state to: draining.");
        }),
        ["drain", "-p", var gpu, "-m", "0"] => On(gpu, device =>
        {
            device.Draining = false;
            return new(0, $"Successfully set GPU 0000{gpu} drain state to: not draining.");
        }),
        _ => throw InstalledProgram.Untaught(Programs.NvidiaSmi, arguments),
    };

    SimulatedProcess? Daemon => kernel.Systemd.Find("nvidia-persistenced.service")?.Process;

    OpenNode? KeptBy(PciDevice device) => Daemon?.Open.FirstOrDefault(file => file.Path == $"/dev/nvidia{device.Minor}");

    ProgramResult On(string gpu, Func<PciDevice, ProgramResult> act) =>
        kernel.Bus.Find(gpu) is { Driver: "nvidia" } device ? act(device) : new(6, "No devices were found");
}
