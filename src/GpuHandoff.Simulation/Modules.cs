using GpuHandoff.Kernel;

namespace GpuHandoff.Simulation;

/// <summary>Loading and unloading (kernel/module/main.c) and what modprobe makes of names (kmod).</summary>
sealed class Modules(SimulatedKernel kernel)
{
    const int NotImplemented = 38;

    readonly List<ModuleFile> files = [];
    readonly List<LoadedModule> loaded = [];

    /// <summary>Newest first, as /proc/modules lists them.</summary>
    public IEnumerable<LoadedModule> Loaded => Enumerable.Reverse(loaded);

    public IEnumerable<ModuleFile> BuiltIn => files.Where(file => file.BuiltIn);

    /// <summary>modprobe.d: "options nvidia-drm modeset=1", by module.</summary>
    public Dictionary<string, List<string>> Options { get; } = [];

    /// <summary>The kernel cannot unload (CONFIG_MODULE_UNLOAD unset): /proc/modules has "-" for counts, sysfs no refcnt.</summary>
    public bool CannotUnload { get; set; }

    public void Add(ModuleFile file)
    {
        files.RemoveAll(old => old.Module == file.Module);
        files.Add(file);
        if (!file.BuiltIn)
            return;
        foreach (var driver in file.Drivers)
            kernel.Bus.Register(driver);
    }

    /// <summary>By file name, module name or Debian's alias; dashes and underscores are one (kmod: modname_normalize).</summary>
    public ModuleFile? FindFile(string name)
    {
        var normal = Normal(name);
        return files.Find(file => file.Module == normal || Normal(file.File) == normal);
    }

    public LoadedModule? Find(string name) => loaded.Find(module => module.File.Module == Normal(name));

    public IEnumerable<LoadedModule> DependantsOf(LoadedModule module) =>
        Loaded.Where(other => other.File.Needs.Contains(module.File.Module));

    public int RefCount(LoadedModule module) => Users(module) + DependantsOf(module).Count();

    /// <summary>Open files, and fbcon where it holds the module.</summary>
    public int Users(LoadedModule module) => module.Files + kernel.Consoles.Holds(module.File.Module);

    /// <summary>modprobe: what it needs first, nothing where it is loaded already.</summary>
    public void Load(string name, IReadOnlyList<string> parameters)
    {
        var file = FindFile(name)
            ?? throw new Refusal(0, $"modprobe: FATAL: Module {name} not found in directory /lib/modules/{kernel.Release}");
        // A module on its way out is not waited for (kernel/module/main.c:module_patient_check_exists).
        if (Find(file.Module) is { State: "going" })
            throw new Refusal(0, $"modprobe: ERROR: could not insert '{name}': {Words(Errno.Busy)}");
        if (file.BuiltIn || Find(file.Module) is not null)
            return;
        foreach (var need in file.Needs)
            Load(need, []);
        Insert(file, name, parameters);
    }

    // kernel/params.c:param_get_bool shows Y or N, whichever way it was said.
    static string Shown(string before, string value) => (before, value) switch
    {
        ("Y" or "N", "1" or "y") => "Y",
        ("Y" or "N", "0" or "n") => "N",
        _ => value,
    };

    void Insert(ModuleFile file, string name, IReadOnlyList<string> parameters)
    {
        var values = file.Parameters.ToDictionary();
        foreach (var word in Options.GetValueOrDefault(file.Module, []).Concat(parameters))
        {
            // An unknown parameter is logged and ignored (kernel/module/main.c:unknown_module_param_cb).
            if (word.Split('=', 2) is [var key, var value] && values.TryGetValue(key, out var before))
                values[key] = Shown(before, value);
        }
        var module = new LoadedModule(file, values);
        loaded.Add(module);
        foreach (var driver in file.Drivers)
            kernel.Bus.Register(driver);
        if (file.Init() is var errno and not 0)
        {
            Take(module);
            throw new Refusal(0, $"modprobe: ERROR: could not insert '{name}': {Words(errno)}");
        }
    }

    /// <summary>kernel/module/main.c:delete_module: every reason to refuse is looked at before anything is taken down.</summary>
    public void Unload(string name)
    {
        // delete_module wants the kernel's own name: the file's (Debian's nvidia-current-open) is none.
        if (CannotUnload)
            throw new Refusal(NotImplemented, "ENOSYS (Function not implemented)");
        // kernel/module/main.c:find_module compares to the letter; it is rmmod that turns dashes into underscores.
        var module = loaded.Find(module => module.File.Module == name) ?? throw new Refusal(Errno.NoEntry);
        if (DependantsOf(module).Any())
            throw new Refusal(Errno.TryAgain);
        if (module.State != "live")
            throw new Refusal(Errno.Busy);
        if (Users(module) > 0)
            throw new Refusal(Errno.TryAgain);
        module.State = "going";
        Take(module);
    }

    void Take(LoadedModule module)
    {
        module.File.Exit();
        foreach (var driver in module.File.Drivers)
        {
            kernel.Bus.Unregister(driver);
            driver.DynamicIds.Clear();
        }
        loaded.Remove(module);
    }

    /// <summary>What udev does with a device's modalias; what fails, fails without a word.</summary>
    public void LoadFor(PciDevice device)
    {
        var wanted = files.Where(file => file.LoadedByAlias && file.Drivers.Any(driver => driver.TableMatches(device.Hardware)));
        foreach (var file in wanted.ToList())
            TryLoad(file.Module);
    }

    /// <summary>request_module and its like: a load that nobody hears about.</summary>
    public void TryLoad(string module)
    {
        try
        {
            Load(module, []);
        }
        catch (Exception refused) when (refused is Refusal or NoAnswer)
        {
            // The caller of request_module looks at what is there afterwards, not at modprobe's exit code.
        }
    }

    public static string Normal(string name) => name.Replace('-', '_');

    static string Words(int errno) => errno switch
    {
        Errno.NoDevice => "No such device",
        Errno.Busy => "Device or resource busy",
        _ => Errno.Say(errno),
    };
}
