using System.Collections.Immutable;
using System.Text.Json.Serialization;
using GpuHandoff.Guests;

namespace GpuHandoff.Machines;

/// <summary>Everything that a decision needs, read once. A value: nothing in here looks at the machine again.</summary>
public sealed record Machine(string BootId, string Release)
{
    /// <summary>Every display card, by address.</summary>
    public ImmutableArray<Gpu> Gpus { get; init; } = [];

    /// <summary>The modules that a hand-over may meet; one that is not in here is absent.</summary>
    public ImmutableArray<KernelModule> Modules { get; init; } = [];

    /// <summary>Drivers that the PCI bus knows now, whether from a module or built in.</summary>
    public ImmutableArray<string> Drivers { get; init; } = [];

    /// <summary>Modules that are not loaded and that modprobe would find.</summary>
    public ImmutableArray<string> Loadable { get; init; } = [];

    public DriverVersion? Nvidia { get; init; }

    public bool IommuIsOn { get; init; }

    /// <summary>The IDs that vfio-pci was given at load or on the kernel's command line. The kernel lists no later ones.</summary>
    public ImmutableArray<string> VfioIds { get; init; } = [];

    public ImmutableArray<FrameBuffer> FrameBuffers { get; init; } = [];

    /// <summary>What is left of the firmware's picture: those with a driver, and those that a hand-over of this boot took from it.</summary>
    public ImmutableArray<FirmwareDisplay> FirmwareDisplays { get; init; } = [];

    public ImmutableArray<DrmCard> DrmCards { get; init; } = [];

    public ImmutableArray<VtConsole> Consoles { get; init; } = [];

    /// <summary>NVIDIA's nodes below /dev. The kernel neither makes nor removes them.</summary>
    public ImmutableArray<NamedNode> Nodes { get; init; } = [];

    /// <summary>Processes with a GPU's node open. Only looked for where a module's count says that there are any.</summary>
    public ImmutableArray<GpuUser> Users { get; init; } = [];

    /// <summary>Processes that the kernel did not let us look at in time: a stuck one may keep its lock for ever.</summary>
    public ImmutableArray<int> Unseen { get; init; } = [];

    /// <summary>Null where vfio-pci has none of these functions, or does not count.</summary>
    public VfioUse? Vfio { get; init; }

    /// <summary>Our own process and those that wait for it. Only looked for where there are users.</summary>
    public ImmutableArray<int> Ourselves { get; init; } = [];

    /// <summary>Whom our own process belongs to: what must not be stopped, or nobody is left to go on.</summary>
    public Belonging OurOwn { get; init; } = new();

    /// <summary>
    /// The unit behind display-manager.service, where it is active. Only asked for where a graphical session has a card.
    /// </summary>
    public string? DisplayManager { get; init; }

    /// <summary>Drivers of functions, other than nvidia and vfio-pci, whose modules have more users than processes show.</summary>
    [JsonIgnore]
    public ImmutableArray<HiddenUse> Hidden { get; init; } = [];

    /// <summary>
    /// What systemd tells of the services whose processes have a card; null where it does not answer. Only asked for where
    /// there are such processes.
    /// </summary>
    [JsonIgnore]
    public ImmutableArray<Service>? Services { get; init; } = [];

    /// <summary>Logins that a display manager has opened, by their place below user.slice. Only looked for where a login has a card.</summary>
    [JsonIgnore]
    public ImmutableArray<string> GraphicalSessions { get; init; } = [];

    /// <summary>What tells the host's units that a card is theirs. Only looked for where the template is installed.</summary>
    public ImmutableArray<HostTarget> HostTargets { get; init; } = [];

    /// <summary>The template is installed, and systemctl does not answer: which targets there are is not known.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public bool SystemdIsSilent { get; init; }

    /// <summary>Proxmox's containers that run, with the devices of their configs.</summary>
    public ImmutableArray<RunningContainer> Containers { get; init; } = [];

    /// <summary>Whose containers can be stopped: the managers whose programs are installed. Only looked for where a container runs.</summary>
    public ImmutableArray<ContainerKind> Managers { get; init; } = [];

    /// <summary>Control daemons of CUDA MPS. Only looked for where MPS has a card.</summary>
    public ImmutableArray<RunningMps> Mps { get; init; } = [];

    /// <summary>Whether nvidia-smi is installed.</summary>
    public bool HasNvidiaSmi { get; init; }

    /// <summary>Homes from this boot.</summary>
    public ImmutableArray<Home> Homes { get; init; } = [];

    /// <summary>Calls of this boot that never came back.</summary>
    public ImmutableArray<Wedge> Wedges { get; init; } = [];

    /// <summary>Cards that are lent to VMs.</summary>
    public ImmutableArray<Loan> Loans { get; init; } = [];

    /// <summary>The kernel in a sentence; a recording may lack its release.</summary>
    public string Kernel() => Release is "" ? "(release not known)" : Release;

    public KernelModule Module(string name) =>
        Modules.FirstOrDefault(m => m.Name == name) ?? new(name, ModuleState.Absent, null, []);

    public IEnumerable<Gpu> NvidiaGpus() => Gpus.Where(g => g.IsNvidia());

    public Home? HomeOf(Gpu gpu) => Homes.FirstOrDefault(h => h.Gpu == gpu.Address);

    public Loan? LoanOf(Gpu gpu) => Loans.FirstOrDefault(l => l.Lease.Gpu == gpu.Address);

    public Wedge? WedgeOf(Gpu gpu) => Wedges.FirstOrDefault(w => w.Gpu.SharesSlotWith(gpu.Address));

    /// <summary>
    /// Whether a login is graphical, by who opened it, and a card's screen is its: a process in it has DRM's primary node, or is
    /// X. What runs below the user's own manager (GNOME's shell, a game) goes with that login; one by ssh stays.
    /// </summary>
    /// <param name="session">As <see cref="Belonging.Session"/>.</param>
    public bool IsGraphical(string? session) => session is not null && IsOpenedByADisplayManager(session)
        && Users.Any(u => u.HasAScreen() && u.Of.Session is { } other && SliceOf(other) == SliceOf(session) && IsOpenedByADisplayManager(other));

    bool IsOpenedByADisplayManager(string session) => GraphicalSessions.Contains(session)
        || (session.Contains("/user@", StringComparison.Ordinal) && GraphicalSessions.Any(s => SliceOf(s) == SliceOf(session)));

    static string SliceOf(string session) => session.Split('/')[0];

    public IEnumerable<PciFunction> Functions() => Gpus.SelectMany(g => g.Functions.Concat(g.Neighbours)).DistinctBy(f => f.Address);
}
