using System.Collections.Immutable;
using System.Globalization;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Machines;
using GpuHandoff.Steps;
using GpuHandoff.Survey;

namespace GpuHandoff.Plans;

/// <summary>
/// Who is made to let go of the cards, and how: a unit or a container as a whole, whichever number of its processes have
/// the card, and a process where there is nothing to stop in its place. Pure.
/// </summary>
/// <param name="Users">Those that will have let go.</param>
/// <param name="Steps">One for each unit, container and process; what cannot be started again comes last.</param>
/// <param name="Persistent">Cards whose persistence mode is switched off.</param>
sealed record Stopping(ImmutableArray<GpuUser> Users, ImmutableArray<Step> Steps, ImmutableArray<PciAddress> Persistent)
{
    static readonly Stopping _nobody = new([], [], []);

    /// <summary>What each card's return starts again.</summary>
    ImmutableArray<(PciAddress Gpu, Step Step)> Restarted { get; init; } = [];

    /// <summary>What serves other cards as well, in the order in which it is started again at once.</summary>
    public ImmutableArray<Step> Serving { get; init; } = [];

    public ImmutableArray<string> Notes { get; init; } = [];

    /// <summary>Who would go with a target of the host's, and may not.</summary>
    public ImmutableArray<Finding> Refusals { get; init; } = [];

    /// <summary>Somebody in the way of a card, what is stopped in his place, and what that card's policy says of him.</summary>
    /// <param name="User">Null: nobody has the card open, a container has its nodes all the same.</param>
    sealed record InTheWay(Gpu Gpu, GpuUser? User, Step Step, Treatment Treatment);

    /// <summary>Nobody, where the policy refuses all that are there.</summary>
    /// <param name="gpus">Those that are not yet where they shall be.</param>
    public static Stopping For(Machine machine, Goal goal, ImmutableArray<Gpu> gpus, Policy policy, FreeBy way)
    {
        if (goal.Target != Target.Vfio || gpus is [])
            return _nobody;
        var staying = machine.NvidiaGpus()
            .Where(g => g.Display().Owner.Driver == "nvidia" && goal.Gpus.All(w => w.Address != g.Address)).ToImmutableArray();
        var targets = machine.HostTargets.Where(t => t.IsActive && gpus.Any(g => g.Address == t.Gpu)).ToImmutableArray();
        var holders = gpus.SelectMany(gpu => Holders(machine, gpu, policy.For(gpu), way).Select(user => (Gpu: gpu, User: user))).ToImmutableArray();
        // What hangs on a card's own target goes with it: that was said in the unit, and no policy is asked.
        var bound = holders.Where(h => h.User.Of.Unit is { } unit && targets.Any(t => t.Bound.Contains(unit))
            && !Treating.OutlivesHisUnit(h.User, machine)).Select(h => h.User).ToHashSet();
        var others = WithTheirUnits(holders.Where(h => !bound.Contains(h.User)).Select(h => Meet(h.Gpu, h.User, machine, policy, staying)).ToList(), machine);
        var refused = others.Where(o => o.Treatment == Treatment.Refuse).Select(o => o.User!).ToHashSet();
        var given = Given(machine, gpus, policy, way).Where(g => !others.Any(o => o.Step == g.Step)).ToImmutableArray();
        var going = others.Where(o => !refused.Contains(o.User!)).Concat(given.Where(g => g.Treatment != Treatment.Refuse)).ToImmutableArray();

        // An unload ends persistence mode by itself; switched off before, it can be switched on again by whoever undoes it.
        var persistent = gpus.Where(g => g.Persistence == true && (policy.For(g).Users.Nvidia != Treatment.Refuse || way == FreeBy.Unload)).ToImmutableArray();
        var stops = going.Select(g => g.Step).Distinct().OrderBy(Order).ToImmutableArray();
        var restarted = going.Where(g => g.Treatment == Treatment.Restart).Select(g => (g.Gpu.Address, g.Step)).ToImmutableArray();
        return new(
            [.. bound, .. going.Select(g => g.User).OfType<GpuUser>().Distinct()],
            [
                .. targets.Select(t => new StopTarget(t.Unit, t.Bound)),
                .. stops,
                .. persistent.Select(g => new SwitchPersistence(g.Address, On: false)).Where(s => !stops.Contains(s)),
            ],
            [.. persistent.Select(g => g.Address)])
        {
            Restarted =
            [
                .. targets.Select(t => (t.Gpu, (Step)new StopTarget(t.Unit, [.. t.Bound, .. DownWithAnother(t, machine)]))),
                .. stops.SelectMany(stop => restarted.Where(r => r.Step == stop)),
                .. persistent.Where(g => policy.For(g).Users.Nvidia != Treatment.Stop)
                    .Select(g => (g.Address, (Step)new SwitchPersistence(g.Address, On: false))),
            ],
            Serving = staying is [] ? [] :
            [
                .. stops.Reverse().Where(s => restarted.Any(r => r.Step == s) && Serves(s, staying, machine))
                    .Select(s => s is StopMps mps ? new StartMps(mps.Daemon) { ForOthers = true } : s.Undo()).OfType<Step>(),
            ],
            Refusals =
            [
                .. from target in targets
                   from unit in target.Bound
                   let why = Treating.WhyNever(unit, machine)
                   where why is not null
                   select new Finding("gpu-in-use", $"{unit} is bound to {target.Unit}, and may not be stopped with it", [$"{unit}: {why}"],
                       $"start gpu-handoff from elsewhere, or take {unit} from the target: its BindsTo=, PartOf= or Requires= (systemctl cat {unit})"),
            ],
            Notes =
            [
                .. given.Where(g => g.Treatment == Treatment.Refuse).Select(g => NoteOf((StopContainer)g.Step)).Distinct(),
                .. NoteOf([.. machine.Containers.Where(c => !c.IsKnown && !going.Any(g => g.Step == new StopContainer(c.Container)))]),
            ],
        };
    }

    static InTheWay Meet(Gpu gpu, GpuUser user, Machine machine, Policy policy, ImmutableArray<Gpu> staying)
    {
        var users = policy.For(gpu).Users;
        var treatment = Treating.Of(user, machine, users, othersStay: staying is not []);
        // The daemon closes one card where it is asked to, and goes on serving the others.
        var step = staying is not [] && machine.HasNvidiaSmi && user.Of.Unit == NvidiaUnits.Persistenced && user.Node.Major == Nvidia && user.Node.Minor == gpu.Minor
            ? new SwitchPersistence(gpu.Address, On: false)
            : Treating.Way(user, machine, users);
        // Its clients on this card are users by themselves; those on the others are told by MPS alone.
        if (step is StopUnit unit && staying is not [] && users.Processes == Treatment.Refuse && machine.Mps.Any(m => m.Unit == unit.Unit))
            step = unit with { SparesClients = true };
        return new(gpu, user, step, treatment);
    }

    /// <summary>A job in a unit that is stopped as a whole all the same ends with it, where the stop ends all that runs in it.</summary>
    static ImmutableArray<InTheWay> WithTheirUnits(List<InTheWay> all, Machine machine) =>
    [
        .. from met in all
           let whole = met.Step is StopProcess && met.User!.Of.Unit is { } unit && Treating.EndsAll(unit, machine)
               ? all.Find(o => o.Gpu == met.Gpu && o.Treatment != Treatment.Refuse && o.Step is StopUnit stop && stop.Unit == unit)
               : null
           select whole is null || Treating.WhyNever(met.User!, machine) is not null ? met : met with { Step = whole.Step, Treatment = whole.Treatment },
    ];

    /// <summary>Containers that run and have a card by their config, or by their admin's word: its nodes go stale under them.</summary>
    static IEnumerable<InTheWay> Given(Machine machine, ImmutableArray<Gpu> gpus, Policy policy, FreeBy way) =>
        from gpu in gpus
        let users = policy.For(gpu).Users
        from container in machine.Containers
        let isNamed = users.Restarted.Contains(container.Container.Id)
        where isNamed || (container.IsKnown && container.Has(gpu, machine, way == FreeBy.Unload))
        let may = Treating.WhyNever(container.Container, machine) is null
        select new InTheWay(
            gpu, null, new StopContainer(container.Container), may ? users.OfContainer(container.Container) : Treatment.Refuse);

    /// <summary>
    /// Units that are bound to this target and went down with another card's: whichever card comes back last starts them.
    /// </summary>
    static IEnumerable<string> DownWithAnother(HostTarget target, Machine machine) => target.Dependants.Where(unit =>
        !target.Bound.Contains(unit) && machine.Homes.Any(h => h.Gpu != target.Gpu && h.Stopped.Any(s => s.Unit == unit)));

    static string NoteOf(StopContainer stop) =>
        $"{stop.Container} has the card by its config and nobody in it has it open: it goes on running, and its nodes lead nowhere until it is restarted";

    static IEnumerable<string> NoteOf(ImmutableArray<RunningContainer> unknown) => unknown is [] ? [] :
    [
        $"what was given to {string.Join(", ", unknown.Select(c => c.Container))} is not known: Proxmox's cluster file system does not answer "
            + "(systemctl status pve-cluster); the nodes of one that has the card by its config lead nowhere until it is restarted",
    ];

    /// <summary>Those in the way of one card: the stack's users where it is unloaded, else those of the card itself.</summary>
    static IEnumerable<GpuUser> Holders(Machine machine, Gpu gpu, Policy policy, FreeBy way)
    {
        var nodes = Planner.Leaving(gpu, policy).Where(f => !f.IsOnVfio()).SelectMany(f => f.Nodes).ToList();
        var isOnNvidia = gpu.Display().Owner.Driver == "nvidia";
        if (isOnNvidia && way == FreeBy.Unload)
        {
            nodes.AddRange(machine.Nodes);
            nodes.AddRange(machine.Functions().Where(f => f.Owner.Driver == "nvidia").SelectMany(f => f.Nodes));
        }
        else if (isOnNvidia)
        {
            nodes.AddRange(machine.Nodes.Where(n => n.Path == $"/dev/nvidia{gpu.Minor}"));
        }
        return machine.Users.Where(u => nodes.Exists(n => n.Node.IsSameDevice(u.Node)));
    }

    /// <summary>Whether what is stopped works for cards that stay: NVIDIA's own do by their nature, others where they have one open.</summary>
    static bool Serves(Step step, ImmutableArray<Gpu> staying, Machine machine) => step switch
    {
        StopMps => true,
        StopUnit { Unit: HostUnits.DisplayManager } => false,
        StopUnit { Unit: var unit } => NvidiaUnits.Has(unit) || machine.Users.Any(u => u.Of.Unit == unit
            && staying.Any(g => machine.Nodes.Where(n => n.Path == $"/dev/nvidia{g.Minor}").Concat(g.Functions.SelectMany(f => f.Nodes))
                .Any(n => n.Node.IsSameDevice(u.Node)))),
        _ => false,
    };

    // The screen goes first, then who works on the cards; the daemon that keeps cards initialised goes after its clients; a
    // process that nobody can start again goes when all the others have been seen to stop. Only MPS is later: it waits for
    // its clients, and they are such processes.
    static int Order(Step step) => step switch
    {
        StopUnit { Unit: HostUnits.DisplayManager } => 0,
        StopContainer => 1,
        StopUnit { Unit: var unit } when !NvidiaUnits.Has(unit) => 2,
        StopUnit { Unit: not NvidiaUnits.Persistenced } => 3,
        StopUnit => 4,
        SwitchPersistence => 5,
        StopMps => 7,
        _ => 6,
    };

    /// <summary>What the return has to start again for a card, in the order in which it was stopped.</summary>
    public IEnumerable<Stopped> Remembered(Gpu gpu) => Restarted.Where(r => r.Gpu == gpu.Address).SelectMany(r => r.Step switch
    {
        StopTarget target => [.. target.Bound.Reverse().Select(unit => new Stopped(Unit: unit)), new Stopped(Unit: target.Unit)],
        StopUnit unit => [new Stopped(Unit: unit.Unit)],
        StopContainer container => [new Stopped(Container: container.Container)],
        SwitchPersistence persistence => [new Stopped(Persistence: persistence.Function)],
        StopMps mps => [new Stopped { Mps = mps.Daemon }],
        _ => (IEnumerable<Stopped>)[],
    });

    /// <summary>
    /// The machine as it is with them gone: for the checks, which then find who is left. A module counts as free where a
    /// user of it goes and no visible one stays; whether that is so, the steps have to prove.
    /// </summary>
    public Machine Then(Machine machine)
    {
        if (Steps is [])
            return machine;
        var left = machine.Users.Except(Users).ToImmutableArray();
        var freed = Users.Select(u => ModuleOf(u, machine)).Except(left.Select(u => ModuleOf(u, machine))).OfType<string>().ToImmutableArray();
        return machine with
        {
            Users = left,
            Containers = [.. machine.Containers.Where(c => !Steps.Contains(new StopContainer(c.Container)))],
            Modules = [.. machine.Modules.Select(m => freed.Contains(m.Name) && m.RefCount is not null ? m with { RefCount = m.Holders.Length } : m)],
            Gpus = [.. machine.Gpus.Select(g => Then(g, machine, left))],
        };
    }

    Gpu Then(Gpu gpu, Machine machine, ImmutableArray<GpuUser> left)
    {
        bool Has(GpuUser user) => machine.Nodes.Where(n => n.Path == $"/dev/nvidia{gpu.Minor}")
            .Concat(gpu.Functions.SelectMany(f => f.Nodes)).Any(n => n.Node.IsSameDevice(user.Node));

        return !Persistent.Contains(gpu.Address) && (!Users.Any(Has) || left.Any(Has))
            ? gpu
            : gpu with { Functions = [.. gpu.Functions.Select(f => f.Address == gpu.Address ? f with { Interrupts = 0 } : f)] };
    }

    /// <summary>The modules whose counts must be free before the stack is unloaded.</summary>
    /// <remarks>With modeset=1 nvidia_drm itself counts on the modules below it.</remarks>
    public static ImmutableArray<string> MustBeFree(Machine machine) =>
    [
        .. NvidiaStack.Loaded(machine).Select(m => m.Name)
            .Where(name => name is not ("nvidia" or "nvidia_modeset") || !NvidiaStack.DrmHoldsModules(machine)),
    ];

    public string? Ended() => Steps.OfType<StopProcess>().ToList() is not [] and var ended
        ? $"ended and not started again: {string.Join(", ", ended.Select(p => $"{p.Pid.ToString(CultureInfo.InvariantCulture)} ({p.Command})"))}"
        : null;

    // Null: none of the stack's, such as a jack of the sound card.
    static string? ModuleOf(GpuUser user, Machine machine) => user.Node switch
    {
        { Major: Drm or FrameBuffer } => "nvidia_drm",
        { Major: Nvidia, Minor: Modeset } => "nvidia_modeset",
        { Major: Nvidia or I2c } => "nvidia",
        // The others have another major after each load.
        var node => machine.Nodes.FirstOrDefault(n => n.Node.IsSameDevice(node))?.Path is not { } path ? null
            : path.StartsWith("/dev/nvidia-uvm", StringComparison.Ordinal) ? "nvidia_uvm" : "nvidia",
    };

    // include/uapi/linux/major.h, drm.h, and nvidia's own nv-chardev-numbers.h.
    const uint FrameBuffer = 29;
    const uint I2c = 89;
    const uint Nvidia = 195;
    const uint Drm = 226;
    const uint Modeset = 254;
}
