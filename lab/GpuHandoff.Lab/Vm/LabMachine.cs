namespace GpuHandoff.Lab.Vm;

/// <summary>The machine that a lab case wants.</summary>
public sealed record LabMachine
{
    /// <summary>Names the folder of the evidence: <c>artifacts/lab/NAME/</c>.</summary>
    public required string Name { get; init; }

    /// <summary>The cards, from bus 01 on; each is behind a root port of its own.</summary>
    public IReadOnlyList<LabGpu> Gpus { get; init; } = [LabGpu.Standard];

    public int MemoryMiB { get; init; } = 2048;

    /// <summary>Added to the kernel's command line; a later argument wins over an earlier one.</summary>
    public string KernelArguments { get; init; } = "";

    public IReadOnlyList<LabFile> Files { get; init; } = [];

    /// <summary>Where the picture is that <see cref="LabVm.Screendump"/> saves.</summary>
    public LabDisplay Display { get; init; }

    public LabFirmware Firmware { get; init; }
}
