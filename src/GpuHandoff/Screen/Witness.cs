using System.Collections.Immutable;
using System.Diagnostics;
using GpuHandoff.Commands;
using GpuHandoff.Formats;
using GpuHandoff.Guests;
using GpuHandoff.Kernel;
using GpuHandoff.Linux;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Steps;

namespace GpuHandoff.Screen;

/// <summary>Tells a run as it goes: a line a phase for a task log, every step with its time where someone watches.</summary>
/// <param name="log">Where everything is told besides, quiet or not: who watches a console that goes dark reads it there.</param>
sealed class Witness(Output output, bool steps, bool quiet, bool live, RunLog? log = null) : IWitness
{
    readonly Stopwatch _whole = Stopwatch.StartNew();
    readonly List<string> _done = [];
    readonly List<Watchdog> _watchdogs = [];
    bool _goesDark;
    bool _hasToldOfTheLog;

    /// <summary>On a terminal every step, elsewhere a line a phase; <c>--verbose</c> and <c>--quiet</c> as they say.</summary>
    public static Witness For(Wish wish, RunLog log)
    {
        var terminal = Output.Error.IsTerminal();
        var witness = new Witness(Output.Error, steps: terminal || wish.Verbose, quiet: wish.Quiet, live: terminal, log);
        witness.TellOfTheLog();
        return witness;
    }

    /// <summary>For a task log, which keeps whatever is said: a line a phase, and no less.</summary>
    public static Witness ForTask(RunLog log)
    {
        var witness = new Witness(Output.Error, steps: false, quiet: false, live: false, log);
        witness.TellOfTheLog();
        return witness;
    }

    /// <summary>What is being done at this moment, for who asks us to stop a second time.</summary>
    public string Now { get; private set; } = "the machine is being looked at";

    public void Waits(string what)
    {
        Now = what;
        Tell(what);
    }

    public void Tells(string what) => Tell(what);

    public void Begins(Plan plan)
    {
        // VGA text mode ends with vfio-pci's coming, without a step of its own.
        _goesDark = plan.Keep.Any(h => h.Console is not null) || plan.Steps().Any(s => s is DetachConsole or ReleaseFirmwareDisplay);
        Tell(plan.Summary);
        foreach (var note in plan.Notes)
            Tell($"note: {note}");
    }

    /// <summary>From here on the card must come home whatever becomes of us and of the VM. It comes up while the hand-over goes on.</summary>
    public void Lends(ImmutableArray<Lease> leases) => _watchdogs.Add(Watchdog.Leave(leases[0].Guest));

    public void PhaseBegins(Phase phase)
    {
        _done.Clear();
        // From these on there may be nobody left who sees the screen: what was told so far shall be found on disk.
        if (_goesDark && (phase.Name is "console" or "release" or "bind"))
            log?.ToDisk();
    }

    public void StepBegins(Step step)
    {
        Now = $"the step in hand is: {step.Say()}";
        log?.Line(Weight.Info, $"  … {step.Say()}");
        // Shown while it runs and written over when it ends: a step that hangs is the one that is seen last.
        if (live && !quiet)
            output.Write($"{Say.Tag}   … {PlainText.Line(step.Say())}");
    }

    public void StepEnds(Step step, TimeSpan? took)
    {
        _done.Add(step.Say());
        Over();
        var text = took is { } time ? $"  {step.Say()} ({Seconds(time)})" : $"  {step.Say()} (was so already)";
        log?.Line(Weight.Info, text);
        if (steps)
            Show(text);
    }

    public void StepFails(Step step, string reason)
    {
        Over();
        log?.Line(Weight.Error, $"failed: {step.Say()}: {reason}");
        Say.Line($"failed: {step.Say()}: {reason}", output);
    }

    public void PhaseEnds(Phase phase, TimeSpan took)
    {
        if (!steps)
            Show($"{phase.Name}: {string.Join("; ", _done)} ({Seconds(took)})");
    }

    public void Warns(string what)
    {
        log?.Line(Weight.Warning, $"warning: {what}");
        Say.Line($"warning: {what}", output);
    }

    public void Undoes(Step step)
    {
        Now = $"still being undone: {step.Say()}";
        Tell($"undo: {step.Say()}");
    }

    /// <summary>A line of the program itself, for whoever is at the screen and for the log.</summary>
    public void Says(string text)
    {
        log?.Line(Weight.Notice, text);
        Say.Line(text, output);
    }

    /// <summary>What was refused, for the log alone: the words for the screen, or the data, are said elsewhere.</summary>
    public void Refuses(Answer.Refused why)
    {
        log?.Line(Weight.Error, $"{why.What}: {Say.Footprint.State()}");
        foreach (var finding in why.Findings)
            log?.Line(Weight.Error, $"  [{finding.Code}] {finding.What}{string.Concat(finding.Evidence.Select(e => $"; {e}"))}");
    }

    public void Ends(KernelSilent silent) => Trouble(
        "the kernel does not answer a look at the GPU", [Call(silent)],
        "a device's lock is held by something that hangs: look at dmesg, then reboot the host", Say.Footprint.State());

    /// <summary>The call, since when by the clock on the wall, and who is still in it.</summary>
    static string Call(KernelSilent silent) =>
        $"{silent.Message}, since {DateTime.Now - silent.Waited:HH:mm:ss}{(silent.Process is { } process ? $" ({process})" : "")}";

    public void Ends(Plan plan, Outcome outcome)
    {
        switch (outcome)
        {
            case Outcome.Done when !plan.IsEmpty():
                Tell($"done in {Seconds(_whole.Elapsed)}");
                break;
            case Outcome.RolledBack back:
                Trouble(
                    back.What, back.Cause is { } cause ? [cause.Reason] : [],
                    back.Cause is null ? "it can be run again; --timeout gives it longer" : back.Cause.Hint ?? "the kernel log may say more: dmesg | tail -50",
                    "everything is as it was before");
                break;
            case Outcome.Stuck { Silent: true } stuck:
                Trouble(
                    stuck.What,
                    [
                        .. stuck.Failures.Select(f => f.Reason == stuck.Call?.Message ? Call(stuck.Call) : f.Reason),
                        .. stuck.NotUndone.Select(s => $"not undone: {s.Say()}"),
                    ],
                    "the kernel is still in that call and cannot be interrupted: look at dmesg, then reboot the host",
                    "the GPU is marked as stuck until then: no run touches it again");
                break;
            case Outcome.Stuck stuck:
                Trouble(
                    stuck.What,
                    [.. stuck.Failures.Select(f => $"{f.Step.Say()}: {f.Reason}"), .. stuck.NotUndone.Select(s => $"not undone: {s.Say()}")],
                    "gpu-handoff status --verbose tells what is what now; gpu-handoff recover tries to take the rest back",
                    "not everything could be undone");
                break;
        }
        // What was taken back needs nobody to watch over it.
        TellOfWatches(outcome is Outcome.Done);
        TellOfTheLog();
        // An ordinary end can wait for the kernel to write it; one that somebody will look into cannot, nor one in the dark.
        if (_goesDark || outcome is not Outcome.Done)
            log?.ToDisk();
    }

    /// <summary>Whether somebody watches over what was lent.</summary>
    public void TellOfWatches(bool isLent)
    {
        foreach (var watchdog in _watchdogs)
        {
            if (isLent && watchdog.Trouble() is { } trouble)
                Warns(trouble);
            watchdog.Dispose();
        }
        _watchdogs.Clear();
    }

    void Over()
    {
        if (live && !quiet)
            output.EraseLine();
    }

    /// <summary>A log that is not complete, once: the run goes on without.</summary>
    void TellOfTheLog()
    {
        if (_hasToldOfTheLog || log?.Trouble is not { } trouble)
            return;
        _hasToldOfTheLog = true;
        Warns($"the log is not complete: {trouble}");
    }

    void Trouble(string what, IEnumerable<string> evidence, string? hint, string? state)
    {
        var lines = Say.Lines(what, evidence, hint, state).ToList();
        foreach (var line in lines)
        {
            log?.Line(Weight.Error, line);
            Say.Line(line, output);
        }
    }

    void Tell(string text)
    {
        log?.Line(Weight.Info, text);
        Show(text);
    }

    void Show(string text)
    {
        if (!quiet)
            Say.Line(text, output);
    }

    static string Seconds(TimeSpan time) => $"{time.TotalSeconds:0.00} s";
}
