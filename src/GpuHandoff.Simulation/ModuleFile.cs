namespace GpuHandoff.Simulation;

/// <summary>A module as it lies in /lib/modules, or as it is built into the kernel.</summary>
sealed record ModuleFile(string Module)
{
    /// <summary>The file's name without .ko: Debian's nvidia is nvidia-current-open, with modprobe aliases.</summary>
    public string File { get; init; } = Module;

    /// <summary>The modules whose symbols it needs; they are loaded before it and cannot go before it.</summary>
    public IReadOnlyList<string> Needs { get; init; } = [];

    public string? Version { get; init; }

    /// <summary>The taint letters of an out-of-tree or proprietary module: (OE), (POE).</summary>
    public string Taint { get; init; } = "";

    public int Size { get; init; } = 40960;

    /// <summary>The parameters that sysfs shows, with their defaults.</summary>
    public IReadOnlyDictionary<string, string> Parameters { get; init; } = new Dictionary<string, string>();

    public IReadOnlyList<PciDriver> Drivers { get; init; } = [];

    /// <summary>Whether module init succeeds, asked after its drivers were registered: 0 or an errno.</summary>
    public Func<int> Init { get; init; } = static () => 0;

    public Action Exit { get; init; } = static () => { };

    /// <summary>In the kernel itself: a folder in /sys/module, but no initstate, no refcnt, and no way out.</summary>
    public bool BuiltIn { get; init; }

    /// <summary>udev may load it by a device's modalias (no blacklist line stands against it).</summary>
    public bool LoadedByAlias { get; init; }
}

/// <summary>A module in the kernel (struct module).</summary>
sealed class LoadedModule(ModuleFile file, IReadOnlyDictionary<string, string> parameters)
{
    public ModuleFile File { get; } = file;
    public IReadOnlyDictionary<string, string> Parameters { get; } = parameters;

    /// <summary>References from open files; dependants come on top.</summary>
    public int Files { get; set; }

    /// <summary>live, coming or going (kernel/module/main.c:show_initstate).</summary>
    public string State { get; set; } = "live";
}
