using System.Collections.Immutable;
using System.Text.RegularExpressions;
using GpuHandoff.Checks;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;
using GpuHandoff.Machines;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Simulation;
using GpuHandoff.Steps;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Everywhere;

/// <summary>An invariant that did not hold. The first word says which.</summary>
sealed class Broken(string rule, string what) : Exception($"{rule}: {what}")
{
    public string Rule { get; } = rule;
}

/// <summary>
/// Plays a case and judges every run of it by what must hold whatever happens:
/// no function is lost; nothing outside the card, its accepted neighbours and NVIDIA's stack is written; a refused run wrote
/// nothing; one that was rolled back left the machine equal; none takes longer than its limits; one that met a silent call
/// made no further one, and no call is silent but those that were made so; out and back is the identity.
/// </summary>
sealed partial class Trial(Case @case, Tally tally)
{
    readonly Stage _stage = new(@case);
    readonly MemoryLedger _ledger = new();
    readonly List<string> _told = [];

    /// <summary>The machine before the first card went away, and the cards that are away since; null: not to be told.</summary>
    string? _origin;
    readonly HashSet<PciAddress> _away = [];
    bool _originKnown = true;

    SimulatedKernel Kernel => _stage.Kernel;

    public static void Of(Case @case, Tally tally)
    {
        var trial = new Trial(@case, tally);
        try
        {
            foreach (var errand in @case.Errands)
            {
                if (!trial.Play(errand))
                    return;
            }
            trial.Recover();
        }
        catch (Exception e) when (e is not Broken)
        {
            throw new Broken("crash", $"{e}\n{trial.Told()}");
        }
    }

    /// <summary>One run; whether another may follow.</summary>
    bool Play(Errand errand)
    {
        _told.Add(errand.ToString());
        var machine = Surveyor.Survey(Kernel, _ledger.Homes(), errand.Target, _ledger.Wedges());
        if (Selection.Of(machine, errand.Card < 0 ? "all" : _stage.AddressOf(errand.Card).ToString()) is not Selection.Chosen { Gpus: var gpus })
            return true;
        var policy = Policy.Default with
        {
            By = errand.By,
            Claim = errand.Claim,
            LoseConsole = true,
            Users = errand.StopUsers ? UsersPolicy.Default with { Units = Treatment.Restart } : UsersPolicy.Default,
            Accepted = errand.Accept ? [.. gpus.SelectMany(g => g.Neighbours).Select(n => n.Address).Distinct()] : [],
        };
        return Carry(errand, machine, new(errand.Target, gpus), policy);
    }

    bool Carry(Errand errand, Machine machine, Goal goal, Policy policy)
    {
        // A run that was killed is brought to its end first: then the machine is not what it was when we came.
        var unfinished = _ledger.Unfinished();
        var may = Allowed(machine, goal, policy);
        may.UnionWith(unfinished.SelectMany(u => u.Plan.Gpus).SelectMany(g => machine.Gpus.Where(m => m.Address == g))
            .SelectMany(g => g.Functions.Select(f => f.Address).Concat(machine.HomeOf(g)?.Functions.Select(h => h.Function) ?? [])));
        var before = new
        {
            Picture = Picture(),
            Full = Kernel.Describe(),
            Owners = Owners(),
            Homes = Records(),
            Stack = Stack(),
            Calls = Kernel.Calls.Count,
            Drivers = Kernel.List(Sys.PciDrivers),
            Kernel.Uptime,
        };
        var witness = new Watch();
        using var stop = new CancellationTokenSource();
        var (kernel, door) = Door.To(Kernel);
        witness.Door = door;
        Kernel.Faults.Before(_ => true, k =>
        {
            if (_others)
                return;
            door.Begins();
            try
            {
                Watched(k.Calls[^1], machine, goal, may, unfinished);
            }
            catch (Broken broken)
            {
                _broken ??= broken;
            }
        }, once: false);
        _ledger.Before = _ => door.Check(_others);
        var met = Arm(errand, door, stop, goal);

        Ending? ending = null;
        try
        {
            ending = new Turn(kernel, _ledger, new MemoryLocks(_locks, Us), witness)
                .HandOver(errand.Target, errand.Card < 0 ? "all" : _stage.AddressOf(errand.Card).ToString(), policy, stop.Token);
        }
        catch (Death)
        {
            _told.Add("killed");
            _locks.Drop(Us);
        }
        _ledger.Before = null;
        // Within the run it counts as one more thing that went wrong.
        if (_broken is not null)
            throw _broken;
        var outcome = (ending as Ending.Ran)?.Outcome;
        _told.AddRange(witness.Lines);
        var took = Kernel.Uptime - before.Uptime;
        Kernel.Faults.Clear();
        _stage.SendVisitorsAway();

        var said = outcome switch
        {
            null when ending is Ending.Refused => "refused",
            null when ending is Ending.Unanswered => "stuck: silent",
            null => "killed",
            Outcome.Done => "done",
            Outcome.RolledBack => "rolled back",
            Outcome.Stuck { Silent: true } => "stuck: silent",
            _ => "stuck",
        };
        _told.Add(outcome?.ToString() ?? said);
        if (ending is Ending.Refused { Why: var why })
        {
            _told.Add($"{why.What}: {string.Join("; ", why.Findings.Select(f => $"{f.Code} {f.What}"))}");
            Must(why.Findings is not [], "refusal", "no reason was given");
            if (!met.Any(IsActor) && unfinished is [])
                Must(Kernel.Calls.Count == before.Calls && Picture() == before.Picture, "refused", "something was written");
        }
        tally.Add(errand, [.. met], said);

        // A driver's first load takes what is free for it, and its module stays: as good as somebody else's doing.
        var actors = met.Any(IsActor) || _managerHangs || before.Owners.Any(o => o.Value.Driver is null
            && Owners().TryGetValue(o.Key, out var now) && now.Driver is { } driver && now.Only == o.Value.Only && !before.Drivers.Contains(driver));
        // One mishap begins the rollback, another one spoils it; a driver or a card that stays away does both.
        var spoils = met.Count + (_spoilt || met.Exists(k => k is MishapKind.ProbeFails or MishapKind.Lost) ? 2 : 0);
        _spoilt |= spoils > met.Count;

        Must(before.Owners.Keys.All(Owners().ContainsKey), "lost", "a function has left the bus");
        Must(Kernel.Hazards is [], "hazard", string.Join("; ", Kernel.Hazards));
        Must(!door.WentOnAfterSilence, "silence", "something was called after a call that did not return");
        Must((outcome is Outcome.Stuck { Silent: true }) == (door.Silent > 0) || outcome is null || unfinished is not [], "silence", "a silent call and the outcome do not agree");
        Must(door.Silent == 0 || met.Any(k => k is MishapKind.Silent or MishapKind.SilentThenDone), "hang", "a call of ours did not return, and no mishap made it so");
        // Bringing another run to its end, waiting for one, and waiting for a VM have limits of their own.
        var most = policy.Limits.Total + policy.Limits.Restart + policy.Patience + witness.Longest();
        Must(took <= most || unfinished is not [] || met.Contains(MishapKind.OtherRun), "time", $"{took} is more than {most}");
        if (!actors)
        {
            foreach (var (function, owner) in before.Owners.Where(o => !may.Contains(o.Key)))
            {
                // Whoever loads a driver gives it every function that is free for it: so does a boot, and so does a modprobe by hand.
                Must(
                    Owners()[function] is var now && (now == owner || (owner.Driver is null && now.Driver != Owner.Vfio && now.Only == owner.Only)), "stranger",
                    $"{function} was {owner} and is {Owners()[function]}");
            }
        }

        switch (outcome)
        {
            case Outcome.Done:
                Judge(errand, goal, policy, machine, ((Ending.Ran)ending!).Plan, actors || unfinished is not [], before.Full, before.Picture, before.Stack);
                break;
            case Outcome.RolledBack:
                if (!actors && unfinished is [] && !met.Exists(k => k is MishapKind.ProbeFails or MishapKind.Lost))
                {
                    Same(before.Picture, Picture(), "rolled back");
                    Must(Records() == before.Homes, "rolled back", $"the ledger is\n{Records()}\nand was\n{before.Homes}");
                }
                break;
            case Outcome.Stuck { Silent: false }:
                // A kernel that cannot unload cannot undo a load; and a user can be what begins the rollback.
                Must(spoils > 1 || actors || unfinished is not [] || @case.Host.NoUnload || @case.Holders is not [], "stuck", "one fault alone must be undone");
                _originKnown = false;
                break;
        }
        if (actors)
            _originKnown = false;
        // Killed on its way out, it is away as well as not: the record tells, and the next run decides.
        if (ending is null && errand.Target == Target.Vfio)
            Leaves(goal, machine, before.Picture);
        _stuck |= outcome is Outcome.Stuck || spoils > met.Count;
        return outcome is not Outcome.Stuck { Silent: true } && ending is not Ending.Unanswered;
    }

    void Judge(
        Errand errand, Goal goal, Policy policy, Machine machine, Plan plan, bool actors, string full, string picture, string[] stack)
    {
        if (actors)
        {
            // The world was another one when we came.
            _originKnown = false;
            if (errand.Target == Target.Vfio)
                _away.UnionWith(goal.Gpus.Select(g => g.Address));
            else
                _away.ExceptWith(goal.Gpus.Select(g => g.Address));
            return;
        }
        var after = Surveyor.Survey(Kernel, _ledger.Homes(), errand.Target, _ledger.Wedges());
        var again = Planner.Plan(after, goal with { Gpus = [.. goal.Gpus.Select(g => after.Gpus.First(a => a.Address == g.Address))] }, policy);
        Must(again is Answer.Planned { Plan: var next } && next.IsEmpty(), "done", $"a second run has something to do: {Say(again)}");
        if (plan.IsEmpty())
            Must(Kernel.Describe() == full, "nothing to do", "something was done");
        // Another card on nvidia keeps every module that it had.
        if (machine.NvidiaGpus().Any(g => g.Display().Owner.Driver == "nvidia" && goal.Gpus.All(w => w.Address != g.Address)))
            Must(stack.All(Stack().Contains), "other", $"the other card's modules were {string.Join(' ', stack)} and are {string.Join(' ', Stack())}");
        if (errand.Target == Target.Vfio)
        {
            Leaves(goal, machine, picture);
            return;
        }
        // What we did not take away may have been brought home all the same.
        foreach (var gpu in goal.Gpus)
            _originKnown &= _away.Remove(gpu.Address);
        if (_away.Count == 0)
        {
            // A claim takes to the host what was on vfio-pci before.
            if (_origin is { } origin && _originKnown && !policy.Claim)
                Same(origin, Picture(), "identity");
            _origin = null;
            _originKnown = true;
        }
    }

    void Leaves(Goal goal, Machine machine, string picture)
    {
        if (_away.Count == 0)
        {
            _origin = picture;
            _originKnown = true;
        }
        foreach (var gpu in goal.Gpus.Where(g => !_away.Contains(g.Address)))
        {
            // Only a card that was at home can come home as it was.
            if (gpu.Display().Owner.Driver is null or Owner.Vfio)
                _originKnown = false;
            // An override to vfio-pci on a driver of the host is a leftover, and not restored.
            if (gpu.Functions.Concat(gpu.Neighbours).Any(f => f.Owner is { Driver: not Owner.Vfio, Only: Owner.Vfio }))
                _originKnown = false;
            // A card with a record from before counts as away already.
            if (machine.HomeOf(gpu) is not null)
                _originKnown = false;
            _away.Add(gpu.Address);
        }
    }

    const string Us = "9000 gpu-handoff";

    readonly MemoryLocks.Table _locks = new();
    bool _others;
    bool _stuck;
    bool _spoilt;

    /// <summary>What was to be started again may stay down.</summary>
    bool _managerHangs;
    Broken? _broken;

    /// <summary>After a crash, the look at boot or of the watchdog: it leaves no run behind that did not end.</summary>
    void Recover()
    {
        // A wedged card is left alone, and its run with it.
        if (_ledger.Unfinished() is [] || _ledger.Wedges() is not [] || _stuck)
            return;
        var endings = new Turn(Kernel, _ledger, new MemoryLocks(_locks, Us), new Watch()).Recover(Policy.Default, wait: true, CancellationToken.None);
        _told.Add($"recover: {string.Join("; ", endings)}");
        Must(_ledger.Unfinished() is [] || @case.Holders is not [] || @case.Host.NoUnload, "recover", "a run is left that did not end");
        Must(Kernel.Hazards is [], "hazard", string.Join("; ", Kernel.Hazards));
    }

    void OtherRun(int card)
    {
        _others = true;
        try
        {
            new Turn(Kernel, _ledger, new MemoryLocks(_locks, "9001 gpu-handoff"), new Watch())
                .HandOver(Target.Vfio, _stage.AddressOf(card).ToString(), Policy.Default, CancellationToken.None);
        }
        finally
        {
            _others = false;
        }
    }

    /// <summary>Sets the errand's mishaps up; the list fills with those that came to pass.</summary>
    List<MishapKind> Arm(Errand errand, Door door, CancellationTokenSource stop, Goal goal)
    {
        var met = new List<MishapKind>();
        var first = Kernel.Calls.Count;
        foreach (var mishap in errand.Mishaps)
        {
            var call = first + mishap.Call;
            switch (mishap.Kind)
            {
                case MishapKind.DieBefore:
                    door.DieBefore(mishap.Call);
                    break;
                case MishapKind.DieAfter:
                    door.DieAfter(mishap.Call);
                    break;
                case MishapKind.VisitLook or MishapKind.ListenLook or MishapKind.StartVmLook:
                    Kernel.Faults.BeforeLook(Kernel.Looks + mishap.Call, _ => Happen(mishap, 0));
                    break;
                default:
                    Kernel.Faults.Before(call, _ => Happen(mishap, call));
                    break;
            }
        }
        return met;

        void Happen(Mishap mishap, int call)
        {
            var text = Kernel.Calls.Count > 0 ? Kernel.Calls[^1] : "";
            // Nodes are made and removed by plain calls, which cannot block.
            var canBlock = !text.StartsWith("mknod", StringComparison.Ordinal) && !text.StartsWith("unlink", StringComparison.Ordinal);
            _told.Add($"{mishap.Kind} at {text}");
            var happened = true;
            switch (mishap.Kind)
            {
                case MishapKind.Refuse:
                    Kernel.Faults.Refuse(call, Errno.InputOutput);
                    break;
                case MishapKind.RefuseAfterwards:
                    Kernel.Faults.RefuseAfterwards(call, Errno.InputOutput);
                    break;
                case MishapKind.Ignore:
                    Kernel.Faults.Ignore(call);
                    break;
                // A program that hangs is not asked again in that run, not for an undo either.
                case MishapKind.Silent or MishapKind.SilentThenDone when text.StartsWith('/'):
                    Kernel.Faults.Silent(call);
                    _spoilt = true;
                    break;
                case MishapKind.Silent when canBlock:
                    Kernel.Faults.Silent(call);
                    break;
                case MishapKind.SilentThenDone when canBlock:
                    Kernel.Faults.SilentThenDone(call);
                    break;
                case MishapKind.Slow when canBlock:
                    Kernel.Pause(TimeSpan.FromSeconds(60));
                    break;
                case MishapKind.Stop:
                    stop.Cancel();
                    break;
                case MishapKind.Visit:
                    happened = _stage.Visit(mishap.Card, mishap.Seconds);
                    break;
                case MishapKind.Listen:
                    happened = _stage.Listen(mishap.Card, mishap.Seconds);
                    break;
                case MishapKind.VisitLook:
                    happened = _stage.VisitDirectly(mishap.Card, mishap.Seconds);
                    break;
                case MishapKind.ListenLook:
                    happened = _stage.ListenHidden(mishap.Card, mishap.Seconds);
                    break;
                case MishapKind.StartVmLook:
                    happened = _stage.VmStarts(mishap.Card, mishap.Seconds);
                    break;
                case MishapKind.ManagerHangs:
                    Kernel.HangSystemctl();
                    _managerHangs = true;
                    break;
                case MishapKind.StartVm:
                    happened = _stage.VmStarts(mishap.Card, mishap.Seconds);
                    break;
                case MishapKind.Modprobe:
                    _stage.Modprobe();
                    break;
                case MishapKind.MakeNodes:
                    _stage.MakeNodes();
                    break;
                case MishapKind.Lost when _stage.AddressOf(mishap.Card) is { } card:
                    Kernel.LoseDevice(card);
                    break;
                case MishapKind.OtherRun when goal.Gpus.All(g => g.Address != _stage.AddressOf(mishap.Card)):
                    OtherRun(mishap.Card);
                    break;
                case MishapKind.ProbeFails when _stage.AddressOf(mishap.Card) is { } card:
                    Kernel.FailProbe("nvidia", card, Errno.NotPermitted);
                    break;
                default:
                    happened = false;
                    break;
            }
            if (happened)
                met.Add(mishap.Kind);
        }
    }

    static bool IsActor(MishapKind kind) =>
        kind is MishapKind.Visit or MishapKind.Listen or MishapKind.StartVm or MishapKind.VisitLook or MishapKind.ListenLook or MishapKind.StartVmLook or MishapKind.Modprobe or MishapKind.MakeNodes or MishapKind.OtherRun;

    // ---- what may be written ----

    static HashSet<PciAddress> Allowed(Machine machine, Goal goal, Policy policy) =>
    [
        .. from gpu in goal.Gpus
           from function in gpu.Functions.Select(f => f.Address)
               .Concat(gpu.Neighbours.Select(n => n.Address).Where(policy.Accepted.Contains))
               // Neighbours that went with the card come back with it.
               .Concat(machine.HomeOf(gpu)?.Functions.Select(h => h.Function) ?? [])
           select function,
    ];

    /// <summary>Nvidia was not there before: other cards have it by that load alone, which is taken back with them.</summary>
    static bool LoadedNvidia(Unfinished run) => run.Plan.Steps().ToList() is var steps && run.Begun.Any(i => steps[i] is LoadDriver { Module: "nvidia" });

    void Watched(string call, Machine machine, Goal goal, HashSet<PciAddress> may, ImmutableArray<Unfinished> unfinished)
    {
        var words = call.Split(' ');
        var allowed = words[0] switch
        {
            "write" => MayWrite(words[^1], string.Join(' ', words[1..^1]).Trim('"'), machine, may),
            "modprobe" => NvidiaStack.Has(words[1]) || words[1] is "vfio_pci" or "snd_hda_intel" or "xhci_pci" or "i2c_nvidia_gpu" or "nouveau" or "amdgpu",
            "rmmod" => NvidiaStack.Has(words[1]),
            // A service of the card, which a run with StopUsers stops and starts again.
            "/usr/bin/systemctl" => call.Contains("work", StringComparison.Ordinal),
            "mknod" or "unlink" => words[1].StartsWith("/dev/nvidia", StringComparison.Ordinal),
            _ => false,
        };
        Must(allowed, "outside", call);
        if (call == "rmmod nvidia")
        {
            // A killed run's cards are taken back together, as that run would have done itself.
            var other = machine.NvidiaGpus().FirstOrDefault(g => g.Display().Owner.Driver == "nvidia"
                && Kernel.Device(g.Address).Driver == "nvidia" && goal.Gpus.All(w => w.Address != g.Address)
                && !unfinished.Any(u => u.Plan.Gpus.Contains(g.Address) || LoadedNvidia(u)));
            Must(other is null, "other", $"nvidia was unloaded under {other?.Address}");
        }
    }

    bool MayWrite(string path, string text, Machine machine, HashSet<PciAddress> may)
    {
        bool Mine(string word) => PciAddress.TryParse(word, out var address) && may.Contains(address);

        return path.Split('/') switch
        {
            ["", "sys", "bus", "pci", "devices", var function, "driver_override" or "d3cold_allowed" or "reset" or "reset_method" or "remove"] => Mine(function),
            ["", "sys", "bus", "pci", "devices", var bridge, "reset_subordinate" or "reset"] => Kernel.Devices
                .Where(d => d.Hardware.Behind?.ToString() == bridge).All(d => may.Contains(d.Address)),
            ["", "sys", .., "rescan"] => true,
            // fbcon is one for all: whose frame buffers it was on is asked by the tests of the console.
            ["", "sys", "class", "vtconsole", _, "bind"] => machine.FrameBuffers.All(f => f.Function is { } on && may.Contains(on)),
            ["", "sys", "class", "graphics", "fbcon", "rotate"] => text == "0",
            ["", "sys", "bus", "platform", "drivers", _, "bind" or "unbind"] => true,
            ["", "sys", "bus", "pci", "devices", var function, "power", "control"] => Mine(function),
            ["", "sys", "bus", "pci", "drivers", _, "bind" or "unbind"] => Mine(text),
            ["", "sys", "bus", "pci", "drivers_probe"] => Mine(text),
            ["", "sys", "bus", "pci", "drivers", "vfio-pci", "remove_id"] => machine.Functions()
                .Any(f => may.Contains(f.Address) && text == f.Id.ToString().Replace(':', ' ')),
            _ => false,
        };
    }

    // ---- pictures ----

    Dictionary<PciAddress, Owner> Owners() => Kernel.Devices.ToDictionary(d => d.Address, d => new Owner(d.Driver, d.Override));

    string Records() => string.Join('\n', _ledger.Homes().OrderBy(h => h.Gpu).Select(
        h => $"{h.Gpu}: {string.Join(", ", h.Functions)}; {string.Join(", ", h.Modules.Select(m => m.Name))}; {string.Join(", ", h.Nodes)}"));

    string[] Stack() => [.. ModuleList.Parse(Kernel.Read(Sys.Proc / "modules") ?? "").Select(m => m.Name).Where(NvidiaStack.Has)];

    /// <summary>
    /// The machine without what is numbered anew whenever it comes: minors, sound cards, DRM cards, frame buffers. An orphaned DRM
    /// card (an old nvidia_drm keeps it after an unbind) leads nowhere, and is gone with any reload; so does a node of a module
    /// that is not there. What
    /// vfio-pci takes from the firmware's frame buffer no call brings back (Desk.Picture).
    /// </summary>
    string Picture()
    {
        // What a load brought along may stay; so may the siblings' drivers, which others may use by then.
        string[] mayStay = ["vfio_pci", "snd_hda_intel", "xhci_pci", "i2c_nvidia_gpu", "drm", "drm_kms_helper", "video"];
        var firmware = @case.Host.FirmwareConsole;
        var lines = Kernel.Describe(mayStay).Split('\n')
            .Where(line => !line.StartsWith("ids vfio-pci", StringComparison.Ordinal) && !line.StartsWith("node /dev/dri", StringComparison.Ordinal)
                && !line.Contains(" stale:")
                // Not kept yet: persistence mode through an unload, and the runtime power setting of what was lent by hand.
                && !line.StartsWith("persistent ", StringComparison.Ordinal))
            .Select(line => line.Contains(" driver=vfio-pci ") ? line.Replace(" power=auto ", " power=on ") : line)
            .Where(line => !firmware || !(line.StartsWith("framebuffer", StringComparison.Ordinal) || line.StartsWith("firmware", StringComparison.Ordinal)
                || line.StartsWith("console", StringComparison.Ordinal) || line.StartsWith("node /dev/fb", StringComparison.Ordinal)))
            .Select(line => Numbers.Replace(line.Replace("drm=orphan-nvidia_drm", "drm=-"), m => m.Groups["keep"].Value + "*"));
        // Somebody who leaves in his own time changes the counts, whatever we do.
        if (@case.Holders.Any(h => h.Seconds > 0))
            lines = lines.Select(line => Counts.Replace(line, ""));
        return string.Join('\n', lines.Order(StringComparer.Ordinal));
    }

    void Same(string before, string after, string rule)
    {
        if (before == after)
            return;
        var (old, now) = (before.Split('\n'), after.Split('\n'));
        Must(false, rule, $"the machine is not as before\n- {string.Join("\n- ", old.Except(now))}\n+ {string.Join("\n+ ", now.Except(old))}");
    }

    static string Say(Answer answer) => answer switch
    {
        Answer.Planned planned => string.Join("; ", planned.Plan.Steps().Select(s => s.Say())),
        Answer.Refused refused => string.Join("; ", refused.Findings.Select(f => f.Code)),
        _ => "",
    };

    void Must(bool holds, string rule, string what)
    {
        if (!holds)
            throw new Broken(rule, $"{what}\n{Told()}");
    }

    string Told() => string.Join('\n', _told.Select(line => $"    {line}"));

    // minor=0 sound=1; /dev/snd/controlC0 /dev/dri/card0 /dev/dri/renderD128 /dev/fb0 with their numbers; framebuffer 0
    [GeneratedRegex(@"(?<keep>minor=|sound=|/dev/snd/[a-z]+C|/dev/input/event|/dev/dri/card|/dev/dri/renderD|/dev/fb|^framebuffer )\d+(D3p)?( \d+:\d+)?")]
    static partial Regex Numbers { get; }

    [GeneratedRegex(@" (users|refcnt)=\d+")]
    static partial Regex Counts { get; }

    /// <summary>What a run told, and how long its last parts may take at most.</summary>
    sealed class Watch : IWitness
    {
        TimeSpan _undone;
        TimeSpan _longest;
        bool _isBack;

        public Door? Door { get; set; }

        public List<string> Lines { get; } = [];

        /// <summary>
        /// What may come on top of the total: the step that was under way when it ran out, by the budgets of its calls, and the
        /// undoing, by those of its calls.
        /// </summary>
        public TimeSpan Longest()
        {
            Close();
            return _longest + _undone;
        }

        public void Waits(string what) => Lines.Add($"waits: {what}");

        public void Begins(Plan plan) => Door?.Mark();

        public void PhaseBegins(Phase phase)
        {
        }

        public void StepBegins(Steps.Step step)
        {
            Close();
            Lines.Add($"begins {step.Say()}");
        }

        public void StepEnds(Steps.Step step, TimeSpan? took) => Lines.Add($"{(took is null ? "was so" : "ends")} {step.Say()}");

        public void StepFails(Steps.Step step, string reason) => Lines.Add($"fails {step.Say()}: {reason}");

        public void PhaseEnds(Phase phase, TimeSpan took)
        {
        }

        public void Undoes(Steps.Step step)
        {
            Close();
            _isBack = true;
            Lines.Add($"undoes {step.Say()}");
        }

        public void Warns(string what) => Lines.Add($"warns {what}");

        void Close()
        {
            if (Door is null)
                return;
            if (_isBack)
                _undone += Door.Budgets;
            else
                _longest = Door.Budgets > _longest ? Door.Budgets : _longest;
            Door.Mark();
        }
    }
}
