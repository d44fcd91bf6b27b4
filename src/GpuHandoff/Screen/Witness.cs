using System.Diagnostics;
using GpuHandoff.Commands;
using GpuHandoff.Kernel;
using GpuHandoff.Linux;
using GpuHandoff.Plans;
using GpuHandoff.Runs;
using GpuHandoff.Steps;

namespace GpuHandoff.Screen;

/// <summary>Tells a run as it goes: a line a phase for a task log, every step with its time where someone watches.</summary>
sealed class Witness(Output output, bool steps, bool quiet, bool live) : IWitness
{
    readonly Stopwatch _whole = Stopwatch.StartNew();
    readonly List<string> _done = [];

    /// <summary>On a terminal every step, elsewhere a line a phase; <c>--verbose</c> and <c>--quiet</c> as they say.</summary>
    public static Witness For(Wish wish)
    {
        var terminal = Output.Error.IsTerminal();
        return new(Output.Error, steps: terminal || wish.Verbose, quiet: wish.Quiet, live: terminal);
    }

    /// <summary>What is being done at this moment, for who asks us to stop a second time.</summary>
    public string Now { get; private set; } = "the machine is being looked at";

    public void Waits(string what)
    {
        Now = what;
        Tell(what);
    }

    public void Begins(Plan plan)
    {
        Tell(plan.Summary);
        foreach (var note in plan.Notes)
            Tell($"note: {note}");
    }

    public void PhaseBegins(Phase phase) => _done.Clear();

    public void StepBegins(Step step)
    {
        Now = $"the step in hand is: {step.Say()}";
        // Shown while it runs and written over when it ends: a step that hangs is the one that is seen last.
        if (live && !quiet)
            output.Write($"{Say.Tag}   … {step.Say()}");
    }

    public void StepEnds(Step step, TimeSpan? took)
    {
        _done.Add(step.Say());
        Over();
        if (steps)
            Tell(took is { } time ? $"  {step.Say()} ({Seconds(time)})" : $"  {step.Say()} (was so already)");
    }

    public void StepFails(Step step, string reason)
    {
        Over();
        Say.Line($"failed: {step.Say()}: {reason}", output);
    }

    public void PhaseEnds(Phase phase, TimeSpan took)
    {
        if (!steps)
            Tell($"{phase.Name}: {string.Join("; ", _done)} ({Seconds(took)})");
    }

    public void Warns(string what) => Say.Line($"warning: {what}", output);

    public void Undoes(Step step)
    {
        Now = $"still being undone: {step.Say()}";
        Tell($"undo: {step.Say()}");
    }

    public void Ends(KernelSilent silent) => Say.Trouble(
        "the kernel does not answer a look at the GPU", [Call(silent)],
        "a device's lock is held by something that hangs: look at dmesg, then reboot the host", "nothing was changed", output);

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
                Say.Trouble(
                    back.What, back.Cause is { } cause ? [cause.Reason] : [],
                    back.Cause is null ? "it can be run again; --timeout gives it longer" : "the kernel log may say more: dmesg | tail -50",
                    "everything is as it was before", output);
                break;
            case Outcome.Stuck { Silent: true } stuck:
                Say.Trouble(
                    stuck.What,
                    [
                        .. stuck.Failures.Select(f => f.Reason == stuck.Call?.Message ? Call(stuck.Call) : f.Reason),
                        .. stuck.NotUndone.Select(s => $"not undone: {s.Say()}"),
                    ],
                    "the kernel is still in that call and cannot be interrupted: look at dmesg, then reboot the host",
                    "the GPU is marked as stuck until then: no run touches it again", output);
                break;
            case Outcome.Stuck stuck:
                Say.Trouble(
                    stuck.What,
                    [.. stuck.Failures.Select(f => $"{f.Step.Say()}: {f.Reason}"), .. stuck.NotUndone.Select(s => $"not undone: {s.Say()}")],
                    "gpu-handoff status --verbose tells what is what now; gpu-handoff recover tries to take the rest back",
                    "not everything could be undone", output);
                break;
        }
    }

    void Over()
    {
        if (live && !quiet)
            output.Write("\r\e[K");
    }

    void Tell(string text)
    {
        if (!quiet)
            Say.Line(text, output);
    }

    static string Seconds(TimeSpan time) => $"{time.TotalSeconds:0.00} s";
}
