namespace GpuHandoff.Plans;

/// <summary>
/// NVIDIA's own daemons by the names of their units. They serve the cards and have no work of their own to lose; each
/// makes its list of cards when it begins, so that it has to begin anew to know one that came back.
/// </summary>
static class NvidiaUnits
{
    public const string Persistenced = "nvidia-persistenced.service";

    /// <summary>The one that has others' work to lose: its end aborts CUDA jobs on every GPU (fabricmanager.cfg, ABORT_CUDA_JOBS_ON_FM_EXIT=1).</summary>
    public const string FabricManager = "nvidia-fabricmanager.service";

    // CUDA MPS has no unit of NVIDIA's: these are the names in use.
    static readonly string[] _mps = ["nvidia-mps.service", "nvidia-cuda-mps.service", "nvidia-cuda-mps-control.service"];

    static readonly string[] _names =
    [
        // NVIDIA/nvidia-persistenced, init/systemd; Debian's and Ubuntu's package.
        Persistenced,
        // Dynamic Boost of laptops, it has /dev/nvidia0 open (the driver's systemd/system/nvidia-powerd.service).
        "nvidia-powerd.service",
        // NVSwitch boards (package nvidia-fabricmanager); its successor's link manager (nvlsm).
        FabricManager, "nvidia-nvlsm.service",
        // nv-hostengine (package datacenter-gpu-manager; older ones call it dcgm).
        "nvidia-dcgm.service", "dcgm.service",
        // NVIDIA/dcgm-exporter's etc/dcgm-exporter.service, and what distributions make of its name.
        "dcgm-exporter.service", "nvidia-dcgm-exporter.service", "prometheus-dcgm-exporter.service",
        .. _mps,
    ];

    public static bool Has(string unit) => _names.Contains(unit);

    public static bool HasMps(string unit) => _mps.Contains(unit);
}
